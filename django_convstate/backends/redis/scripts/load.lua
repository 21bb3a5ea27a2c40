-- Return a conversation with its newest messages, and slide its expiry unless it is only peeked at.
-- Follows common.lua.
-- KEYS: meta, state, messages, ids.  ARGV: window, max_age (ms, or -1), '1' to peek, the etag of what
--       the caller has (or ''), ...
-- Returns all of it; or {accessed, expires, ttl, 1 if the owner's index is due}, if it still has that
-- etag, and no part is missing.
-- Whether all of it is there, the client finds out from the numbers.
local id, version, owner, created, ttl, due, parts, lasts, accessed, indexed, chain =
    unpack(redis.call('HMGET', KEYS[1], 'id', 'v', 'o', 'c', 't', 'x', 'p', 'e', 'a', 'i', 'h'))
local kind = kind_of(id, version, created, ttl)
if kind == 'corrupt' then return {'corrupt'} end
if kind ~= 'conversation' then return false end
local now = clock()
local left = time_left(ttl, created, tonumber(ARGV[2]), now)
if left <= 0 then
    redis.pcall('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
    return false
end
if ARGV[3] == '1' then
    left = redis.call('PTTL', KEYS[1])
    if left < 0 then left = math.huge end
else
    accessed = now
    -- pcall, because where nothing may be written (out of memory, a replica) reading goes on.
    local slid = slide(left, tonumber(lasts), now, redis.pcall)
    if slid == tonumber(lasts) then
        redis.pcall('HSET', KEYS[1], 'a', now)
    else
        redis.pcall('HSET', KEYS[1], 'a', now, 'e', slid)
    end
end
local expires = left == math.huge and -1 or now + left
local index_due = ARGV[3] ~= '1' and index_is_due(owner, due, indexed, last_saved(parts, accessed), now)
    and 1 or 0
local count = redis.call('LLEN', KEYS[3])
local given = parts and string.sub(parts, 13, 16) ~= '\0\0\0\0' and redis.call('HLEN', KEYS[4]) or 0
local etag = etag_of(version, chain)
if ARGV[4] ~= '' and ARGV[4] == etag and parts and #parts == 50 then
    local counted, _, fields, ids = struct.unpack(PARTS, parts)
    if counted == count and ids == given and redis.call('HLEN', KEYS[2]) == fields then
        return {accessed, expires, ttl, index_due}
    end
end
return {
    id, version, owner, created, accessed, expires, ttl, index_due, parts, count, given,
    redis.call('HGETALL', KEYS[2]),
    redis.call('LRANGE', KEYS[3], -ARGV[1], -1),
    count > tonumber(ARGV[1]) and redis.call('LINDEX', KEYS[3], 0),
    etag,
}
