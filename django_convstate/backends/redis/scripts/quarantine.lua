-- Rename the keys of a conversation that is damaged, so that it is neither served nor overwritten.
-- A client that saw the damage may come late: a conversation that is sound by now stays where it is.
-- Follows common.lua.
-- KEYS: meta, state, messages.  ARGV: how long the renamed keys are kept (ms).
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

local function is_sound()
    if not (type_is(KEYS[1], 'hash') and type_is(KEYS[2], 'hash') and type_is(KEYS[3], 'list')) then
        return false
    end
    local id, version, owner, created, ttl =
        unpack(redis.call('HMGET', KEYS[1], 'id', 'v', 'o', 'c', 't'))
    return kind_of(id, version, created, ttl) ~= 'corrupt' and is_text(owner or '')
        and is_text(table.concat(redis.call('HKEYS', KEYS[2]), ' '))
end

if is_sound() then return 0 end
for _, key in ipairs(KEYS) do
    local to, number = key .. ':corrupt', 1
    while redis.call('EXISTS', to) == 1 do
        number = number + 1
        to = key .. ':corrupt:' .. number
    end
    if redis.call('EXISTS', key) == 1 then
        redis.call('RENAME', key, to)
        redis.call('PEXPIRE', to, ARGV[1])
    end
end
return 1
