-- Take a lease out of the queue. Follows lease_queue.lua.  KEYS: queue.  ARGV: lease.
local time = redis.call('TIME')
leave_queue(ARGV[1], time[1] * 1000 + math.floor(time[2] / 1000))
return 1
