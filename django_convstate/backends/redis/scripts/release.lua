-- Leave the line. Follows line.lua.  KEYS: line.  ARGV: lease.
local time = redis.call('TIME')
leave(ARGV[1], time[1] * 1000 + math.floor(time[2] / 1000))
return 1
