-- Tells whether what is stored under the keys of a conversation is one, and is whole.
-- Follows common.lua. KEYS: meta, state, messages, ids.
local function type_is(key, expected)
    local found = redis.call('TYPE', key).ok
    return found == 'none' or found == expected
end

-- Tell whether all is UTF-8, which is what keys and owners are decoded from.
local UTF8 = {
    '[\194-\223][\128-\191]', '\224[\160-\191][\128-\191]', '[\225-\236\238\239][\128-\191][\128-\191]',
    '\237[\128-\159][\128-\191]', '\240[\144-\191][\128-\191][\128-\191]',
    '[\241-\243][\128-\191][\128-\191][\128-\191]', '\244[\128-\143][\128-\191][\128-\191]',
}
local function is_text(bytes)
    for _, sequence in ipairs(UTF8) do bytes = string.gsub(bytes, sequence, ' ') end
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

-- Tell whether each message is one, with its id.
local function are_messages()
    local from, step = 0, 1000
    while true do
        local elements = redis.call('LRANGE', KEYS[3], from, from + step - 1)
        for _, element in ipairs(elements) do
            if string.byte(element) ~= 123 then  -- of 0.1: see messages.lua
                local size = string.byte(element, 11)
                if not size or #element < 11 + size or not is_text(string.sub(element, 12, 11 + size)) then
                    return false
                end
            end
        end
        if #elements < step then return true end
        from = from + step
    end
end

-- Tell whether each id has a key.
local function are_keys()
    for _, key in ipairs(redis.call('HVALS', KEYS[4])) do
        if #key ~= 10 then return false end
    end
    return true
end

-- Tell whether it is a log of commits: see commit_log.lua.
local function is_log(log)
    local at = 1
    while at <= #log do
        if #log < at + 21 then return false end
        local _, _, floor, count, numbers = struct.unpack('<c8I4dH', log, at)
        if not (floor >= 0 and floor < 2 ^ 53) then return false end
        at = numbers + 8 * count
    end
    return at == #log + 1
end

local function is_sound()
    if not (type_is(KEYS[1], 'hash') and type_is(KEYS[2], 'hash') and type_is(KEYS[3], 'list')
        and type_is(KEYS[4], 'hash')) then
        return false
    end
    local id, version, owner, created, ttl, accessed, log =
        unpack(redis.call('HMGET', KEYS[1], 'id', 'v', 'o', 'c', 't', 'a', 'w'))
    return kind_of(id, version, created, ttl) ~= 'corrupt' and is_text(owner or '')
        and (not version or is_whole(accessed)) and is_log(log or '')
        and is_text(table.concat(redis.call('HKEYS', KEYS[2]), ' ')) and are_messages() and are_keys()
end
