-- Slide the expiry, with a new idle time if one is given. Follows common.lua.
-- KEYS: meta, state, messages.  ARGV: ttl (ms, or ''), max_age (ms, or '').
-- Returns {0} where there is none, {1, ttl, owner whose index is due (or nil)}, or {'corrupt'}.
local id, version, owner, created, ttl, due =
    unpack(redis.call('HMGET', KEYS[1], 'id', 'v', 'o', 'c', 't', 'x'))
local kind = kind_of(id, version, created, ttl)
if kind == 'nothing' then return {0} end
if kind == 'corrupt' then return {'corrupt'} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[1] ~= '' and tonumber(ARGV[1]) ~= tonumber(ttl) then
    ttl, due = ARGV[1], 0  -- or the index might expire before the conversation
end
local left = tonumber(ttl)
if ARGV[2] ~= '' then
    left = math.min(left, created + ARGV[2] - now)
end
if left <= 0 then
    redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
    return {0}
end
redis.call('HSET', KEYS[1], 'a', now, 't', ttl, 'x', due or 0)
redis.call('PEXPIRE', KEYS[1], left)
redis.call('PEXPIRE', KEYS[2], left)
redis.call('PEXPIRE', KEYS[3], left)
return {1, ttl, index_is_due(owner, due, now) and owner}
