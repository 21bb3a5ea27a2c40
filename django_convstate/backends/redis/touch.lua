-- Slide the expiry, with a new idle time if one is given.
-- KEYS: meta, state, messages.  ARGV: ttl (ms, or ''), max_age (ms, or '').
local created, ttl = unpack(redis.call('HMGET', KEYS[1], 'c', 't'))
if not created then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[1] ~= '' then ttl = ARGV[1] end
local left = tonumber(ttl)
if ARGV[2] ~= '' then
    left = math.min(left, created + ARGV[2] - now)
end
if left <= 0 then
    redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
    return 0
end
redis.call('HSET', KEYS[1], 'a', now, 't', ttl)
redis.call('PEXPIRE', KEYS[1], left)
redis.call('PEXPIRE', KEYS[2], left)
redis.call('PEXPIRE', KEYS[3], left)
return 1
