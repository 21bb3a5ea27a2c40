-- Find a message without loading the conversation. Follows common.lua and messages.lua.
-- KEYS: meta, state, messages, ids.  ARGV: locator, id.
-- Returns {position, element}, false where there is none, or {'corrupt'} or {'partial'}.
local id, version, created, ttl, parts =
    unpack(redis.call('HMGET', KEYS[1], 'id', 'v', 'c', 't', 'p'))
local kind = kind_of(id, version, created, ttl)
if kind == 'corrupt' then return {'corrupt'} end
if kind ~= 'conversation' then return false end
local stored, dropped, given = redis.call('LLEN', KEYS[3]), 0, 0
if parts then
    local count, _
    count, dropped, _, given = struct.unpack(PARTS, parts)
    if stored ~= count or redis.call('HLEN', KEYS[4]) ~= given then return {'partial'} end
end
local index, element = locate(ARGV[1], stored, given, ARGV[2], dropped)
return element and {index + dropped, element}
