-- Reads the meta hash of a conversation. Begins each script that loads or changes one.

-- A whole number, in as many digits as a double holds exactly.
local function is_whole(text)
    return text and #text < 16 and string.find(text, '^%d+$')
end

-- Tell what the key holds, by these fields of it: 'nothing', 'conversation' or 'corrupt'.
local function kind_of(id, version, created, ttl)
    if not version and redis.call('EXISTS', KEYS[1]) == 0 then return 'nothing' end
    local is_ours = id and string.sub(KEYS[1], -#id - 7) == '{' .. id .. '}:meta'
        and is_whole(version) and is_whole(created) and is_whole(ttl)
    return is_ours and 'conversation' or 'corrupt'
end

-- Tell whether the owner's index is to be updated. It stays due until that is acknowledged
-- (index_ack.lua).
local function index_is_due(owner, due, now)
    return owner and now > (tonumber(due) or 0)
end
