-- Add a conversation to its owner's index, and remove those that must have expired.
-- The score of a conversation is the time (ms) by which it has expired unless it is added again.
-- KEYS: index.  ARGV: id, ttl (ms).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lasts = 2 * ARGV[2] + 60000
redis.call('ZADD', KEYS[1], 'GT', now + lasts, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('PTTL', KEYS[1]) < lasts then
    redis.call('PEXPIRE', KEYS[1], lasts)
end
return 1
