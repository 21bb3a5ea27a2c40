-- Return a conversation with its newest messages, and slide its expiry. Follows common.lua.
-- KEYS: meta, state, messages.  ARGV: window, max_age (ms, or '').
local id, version, owner, created, ttl, due =
    unpack(redis.call('HMGET', KEYS[1], 'id', 'v', 'o', 'c', 't', 'x'))
local kind = kind_of(id, version, created, ttl)
if kind == 'nothing' then return false end
if kind == 'corrupt' then return {'corrupt'} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local left = tonumber(ttl)
if ARGV[2] ~= '' then
    left = math.min(left, created + ARGV[2] - now)
end
if left <= 0 then
    redis.pcall('DEL', KEYS[1], KEYS[2], KEYS[3])
    return false
end
-- pcall, because where nothing may be written (out of memory, a replica, EVALSHA_RO) reading goes on.
redis.pcall('HSET', KEYS[1], 'a', now)
redis.pcall('PEXPIRE', KEYS[1], left)
redis.pcall('PEXPIRE', KEYS[2], left)
redis.pcall('PEXPIRE', KEYS[3], left)
return {
    id, version, owner, created, now, left, ttl, index_is_due(owner, due, now) and 1 or 0,
    redis.call('LLEN', KEYS[3]),
    redis.call('HGETALL', KEYS[2]),
    redis.call('LRANGE', KEYS[3], -ARGV[1], -1),
}
