-- Record in the conversation that its owner's index lists it, until half of its time to live is over.
-- KEYS: meta.  ARGV: owner, ttl (ms; 0: for ever), which save the index knows of (ms).
local EVERY_DAY = 24 * 3600 * 1000
if redis.call('HGET', KEYS[1], 'o') ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = now + (ARGV[2] == '0' and EVERY_DAY or math.floor(ARGV[2] / 2))
redis.call('HSET', KEYS[1], 'x', due, 'i', ARGV[3])
return 1
