-- Add a conversation to its owner's index, and remove those that must have expired.
-- The score of a conversation is the time (ms) by which it has expired unless it is added again.
-- KEYS: index.  ARGV: id, ttl (ms; 0: for ever).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lasts = 2 * ARGV[2] + 60000
local score = ARGV[2] == '0' and math.huge or now + lasts
local known = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0)
if score > known or known == math.huge then
    redis.call('ZADD', KEYS[1], score == math.huge and '+inf' or score, ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCOUNT', KEYS[1], '+inf', '+inf') > 0 then
    redis.call('PERSIST', KEYS[1])
elseif redis.call('PTTL', KEYS[1]) < lasts then
    redis.call('PEXPIRE', KEYS[1], lasts)
end
return 1
