-- Reads the meta hash of a conversation, and slides its expiry. Begins each script that loads or
-- changes one. KEYS: meta, state, messages, ids, and perhaps others.

-- Numbers of messages, of dropped ones, of state keys and of ids; bytes of the messages and at most of
-- the state; when it was last committed to (ms); the last sort key.
local PARTS = '<I4I4I4I4dddc10'
local NO_KEY = string.rep('\0', 10)

-- Two conversations with the same etag are one and the same, also after one was deleted and begun anew,
-- or a replica was promoted that had not got all. The chain is a hash of all commits: of each, with the
-- chain before it, its writer and number, and when it was applied. '' where there is none, as before.
local function etag_of(version, chain)
    return chain and version .. '.' .. chain or ''
end

local function clock()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A whole number, in as many digits as a double holds exactly.
local function is_whole(text)
    return text and #text < 16 and string.find(text, '^%d+$')
end

-- Tell what the key holds, by these fields of it: 'nothing', 'deleted', 'conversation' or 'corrupt'.
local function kind_of(id, version, created, ttl)
    if not version then
        if redis.call('EXISTS', KEYS[1]) == 0 then return 'nothing' end
        return redis.call('HEXISTS', KEYS[1], 'gone') == 1 and 'deleted' or 'corrupt'
    end
    local is_ours = id and string.sub(KEYS[1], -#id - 7) == '{' .. id .. '}:meta'
        and is_whole(version) and is_whole(created) and is_whole(ttl)
    return is_ours and 'conversation' or 'corrupt'
end

-- Tell whether the owner's index is to be updated: so that it does not expire before the conversation,
-- and knows to a minute when that was last saved. It stays due until that is acknowledged
-- (index_ack.lua).
local INDEX_LAG = 60000
local function index_is_due(owner, due, indexed, saved, now)
    return owner and (now > (tonumber(due) or 0) or saved - (tonumber(indexed) or 0) >= INDEX_LAG)
end

-- Return when it was last committed to (ms); of one of 0.1, when it was last used.
local function last_saved(parts, accessed)
    if not parts or #parts ~= 50 then return tonumber(accessed) or 0 end
    local _, _, _, _, _, _, saved = struct.unpack(PARTS, parts)
    return saved
end

-- Return for how long (ms) it lives from now on. A ttl of 0 stands for ever, and so does math.huge.
local function time_left(ttl, created, max_age, now)
    local left = tonumber(ttl)
    if left == 0 then left = math.huge end
    if max_age >= 0 then left = math.min(left, created + max_age - now) end
    return left
end

-- In replies, which have integers only, -1 stands for ever.
local function in_reply(left)
    return left == math.huge and -1 or left
end

-- Have the conversation expire in `left` ms. State, messages and ids live a tenth longer, until
-- `lasts` (ms; 0: for ever), so that they need not be renewed each time, and are never gone first.
-- Returns until when they live now.
local function slide(left, lasts, now, call)
    if left == math.huge then
        if lasts ~= 0 then
            for at = 1, 4 do call('PERSIST', KEYS[at]) end
        end
        return 0
    end
    call('PEXPIRE', KEYS[1], left)
    if lasts and lasts >= now + left and lasts <= now + 2 * left + 1000 then return lasts end
    local longer = left + math.ceil(left / 10) + 500
    for at = 2, 4 do call('PEXPIRE', KEYS[at], longer) end
    return now + longer
end
