-- Slide the expiry, with a new idle time if one is given. Follows common.lua.
-- KEYS: meta, state, messages, ids.  ARGV: ttl (ms; 0: for ever; or ''), max_age (ms, or -1).
-- Returns {0} where there is none, {1, ttl, when it was saved, owner whose index is due (or nil)}, or
-- {'corrupt'}.
local id, version, owner, created, ttl, due, lasts, parts, indexed =
    unpack(redis.call('HMGET', KEYS[1], 'id', 'v', 'o', 'c', 't', 'x', 'e', 'p', 'i'))
local kind = kind_of(id, version, created, ttl)
if kind == 'corrupt' then return {'corrupt'} end
if kind ~= 'conversation' then return {0} end
local now = clock()
if ARGV[1] ~= '' and tonumber(ARGV[1]) ~= tonumber(ttl) then
    ttl, due = ARGV[1], 0  -- or the index might expire before the conversation
end
local left = time_left(ttl, created, tonumber(ARGV[2]), now)
if left <= 0 then
    redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
    return {0}
end
local slid = slide(left, tonumber(lasts), now, redis.call)
redis.call('HSET', KEYS[1], 'a', now, 't', ttl, 'x', due or 0, 'e', slid)
local saved = last_saved(parts, now)
return {1, ttl, saved, index_is_due(owner, due, indexed, saved, now) and owner}
