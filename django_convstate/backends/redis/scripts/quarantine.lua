-- Rename the keys of a conversation that is damaged, so that it is neither served nor overwritten.
-- A client that saw the damage may come late: a conversation that is sound by now stays where it is.
-- Follows common.lua.
-- KEYS: meta, state, messages, ids.  ARGV: how long the renamed keys are kept (ms), and how long where
-- the server has evicted a part of them, for then there may be many.
-- Returns 1, or 0 where the conversation is sound.
local function type_is(key, expected)
    local found = redis.call('TYPE', key).ok
    return found == 'none' or found == expected
end

-- Tell whether all is UTF-8, which is what keys and owners are decoded from.
local function is_text(bytes)
    bytes = string.gsub(bytes, '[\194-\223][\128-\191]', ' ')
    bytes = string.gsub(bytes, '[\224-\239][\128-\191][\128-\191]', ' ')
    bytes = string.gsub(bytes, '[\240-\244][\128-\191][\128-\191][\128-\191]', ' ')
    return not string.find(bytes, '[\128-\255]')
end

-- Tell whether all parts are there.
local function is_whole_conversation()
    local parts = redis.call('HGET', KEYS[1], 'p')
    if not parts then return true end
    if #parts ~= 50 then return false end
    local count, _, keys, given = struct.unpack(PARTS, parts)
    return redis.call('LLEN', KEYS[3]) == count and redis.call('HLEN', KEYS[2]) == keys
        and redis.call('HLEN', KEYS[4]) == given
end

local function is_sound()
    if not (type_is(KEYS[1], 'hash') and type_is(KEYS[2], 'hash') and type_is(KEYS[3], 'list')
        and type_is(KEYS[4], 'hash')) then
        return false
    end
    local id, version, owner, created, ttl =
        unpack(redis.call('HMGET', KEYS[1], 'id', 'v', 'o', 'c', 't'))
    return kind_of(id, version, created, ttl) ~= 'corrupt' and is_text(owner or '')
        and is_text(table.concat(redis.call('HKEYS', KEYS[2]), ' '))
end

local sound = is_sound()
if sound and is_whole_conversation() then return 0 end
local kept = sound and ARGV[2] or ARGV[1]
for _, key in ipairs(KEYS) do
    local to, number = key .. ':corrupt', 1
    while redis.call('EXISTS', to) == 1 do
        number = number + 1
        to = key .. ':corrupt:' .. number
    end
    if redis.call('EXISTS', key) == 1 then
        redis.call('RENAME', key, to)
        redis.call('PEXPIRE', to, kept)
    end
end
return 1
