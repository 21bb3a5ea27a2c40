-- Renew the lease that holds the turn. Follows lease_queue.lua.
-- KEYS: queue.  ARGV: lease, ms.  Returns 1, or 0 where another lease or none holds the turn.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local entries = read_queue(now)
if #entries == 0 or entries[1][1] ~= ARGV[1] then return 0 end
entries[1][2] = now + ARGV[2]
write_queue(entries, now)
return 1
