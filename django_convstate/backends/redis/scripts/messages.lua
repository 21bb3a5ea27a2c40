-- Messages as they are stored: a sort key (10 bytes), the length of the id (1), the id where it is not
-- the key in hex, and the bytes. See backends/toolkit/packed.py. What 0.1 has stored begins with '{'.
-- The hash of ids says which key was given to an id that is none, by its locator.
local OLD, HEADER = 123, 11
local KEY = '>I6I4'
local FOREIGN = 65535 * 4294967296  -- locators from here on are hashes, and no keys

local function key_of(element)
    if string.byte(element) == OLD then return -1, 0 end
    return struct.unpack(KEY, element)
end

local function data_of(element)
    if string.byte(element) == OLD then return element end
    return string.sub(element, HEADER + 1 + string.byte(element, HEADER))
end

local function bytes_of(element)
    if string.byte(element) == OLD then return #element end
    return #element - HEADER - string.byte(element, HEADER)
end

-- Return the id, if it is not the key.
local function given_id(element)
    local size = string.byte(element) ~= OLD and string.byte(element, HEADER) or 0
    if size > 0 then return string.sub(element, HEADER + 1, HEADER + size) end
end

local function from_hex(text)
    return (string.gsub(text, '..', function(digits) return string.char(tonumber(digits, 16)) end))
end

local function to_hex(bytes)
    return (string.gsub(bytes, '.', function(char) return string.format('%02x', string.byte(char)) end))
end

local function locator(id)
    if #id == 20 and string.find(id, '^[0-7][0-9a-f]+$') then
        local key = from_hex(id)
        if string.byte(key) < OLD then return key end
    end
    return '\255\255' .. from_hex(string.sub(redis.sha1hex(id), 1, 16))
end

-- Return the index and the element of the message with this locator among the first `count`. Of one that
-- 0.1 has stored, the id is '#' and its position.
local function locate(place, count, given, id, dropped)
    local position = string.match(id, '^#(0)$') or string.match(id, '^#([1-9]%d*)$')
    if position then
        local index = position - dropped
        local element = index >= 0 and index < count and redis.call('LINDEX', KEYS[3], index)
        if element and (string.byte(element) == OLD or given_id(element) == id) then
            return index, element
        end
    end
    local known = given > 0 and redis.call('HGET', KEYS[4], place)
    local hi, lo = struct.unpack(KEY, known or place)
    if hi >= FOREIGN then return nil end
    local element
    local function is_before(index)
        element = redis.call('LINDEX', KEYS[3], index)
        local at_hi, at_lo = key_of(element)
        return at_hi < hi or (at_hi == hi and at_lo < lo)
    end
    -- From the end, in longer and longer steps, because it is mostly one of the newest; and then by
    -- bisection: `low` is before it, `high` is not.
    local low, high, step = count - 1, count, 1
    while low >= 0 and not is_before(low) do
        low, high, step = low - step, low, 2 * step
    end
    low = math.max(low, -1)
    while high - low > 1 do
        local middle = math.floor((low + high) / 2)
        if is_before(middle) then low = middle else high = middle end
    end
    if high == count then return nil end
    element = redis.call('LINDEX', KEYS[3], high)
    local found_hi, found_lo = key_of(element)
    -- A key that was given to a message with another id is not the id of that message.
    if found_hi == hi and found_lo == lo and (known or not given_id(element)) then return high, element end
end
