-- Apply a change wholly or not at all, exactly once, and slide the expiry.
-- Follows common.lua, messages.lua and commit_log.lua; and lease_queue.lua, if there is a lease.
-- KEYS: meta, state, messages, ids; and the queue, if there is a lease.
-- ARGV: id, head, writer (8 bytes) and the last sort key that the caller has seen (10), owner (or ''),
--       visitor ('', or '=' and the visitor), then the keys to set with their values, the keys to unset,
--       the keys to add to with their numbers, the keys whose old values are expected with the SHA-1 of
--       these ('' where there was none), the messages to replace (locator; id; SHA-1 of the old bytes, or ''; new bytes), the messages to append (see messages.lua, with
--       the locator in the place of the key), their indexes if they may be there already (4 bytes each),
--       and the lease.
-- The head is numbers, of which -1 stands for none, as operations.py packs them.
-- Returns {version, message count, dropped, ms left, now, ttl, owner whose index is due (or nil),
-- last key, the position after the messages of others, the etag after it, and that before it (see
-- common.lua)} and, if there is more to tell: 1 if it was applied already (then there are no etags), the
-- indexes of messages that were there, and the messages of others. Or {name of an error, ...}.
local MUST_BE_NEW, MUST_EXIST = 1, 2
local CHUNK = 4000  -- unpack gives up near 8000 values
local COUNTER_SIZE = 20  -- bytes of a counter at most

local id, owner_arg, visitor = ARGV[1], ARGV[4], ARGV[5]
local writer, seen_key = string.sub(ARGV[3], 1, 8), string.sub(ARGV[3], 9)
local create, unless_deleted, expected, new_ttl, default_ttl, max_age, keep, commit_number, floor,
    sets, unsets, adds, expects, replaces, appends, onces, max_state, max_messages, drop_oldest,
    release, seen_position, window = struct.unpack('<dddddddddddddddddddddd', ARGV[2])
local first_set = 6
local first_unset = first_set + 2 * sets
local first_add = first_unset + unsets
local first_expect = first_add + 2 * adds
local first_replace = first_expect + 2 * expects
local first_append = first_replace + 4 * replaces
local first_once = first_append + appends
local lease = #KEYS == 5 and ARGV[#ARGV]

local stored_id, version, owner, created, ttl, log, parts, due, lasts, indexed, chain =
    unpack(redis.call('HMGET', KEYS[1], 'id', 'v', 'o', 'c', 't', 'w', 'p', 'x', 'e', 'i', 'h'))
local now = clock()
local kind = kind_of(stored_id, version, created, ttl)
if kind == 'corrupt' or (parts and #parts ~= 50) then return {'corrupt'} end
lasts = tonumber(lasts)
if version and time_left(ttl, created, max_age, now) <= 0 then
    redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
    -- An owner of nil would end the answer, which has what is due for the owner in its midst.
    version, owner, created, ttl, log, parts, due, lasts, chain = nil, false
end
local follows = version and etag_of(version, chain) or ''

local count, dropped, fields, given, bytes, state_bytes, last_key = 0, 0, 0, 0, 0, 0, NO_KEY
if version then
    local stored, stored_fields = redis.call('LLEN', KEYS[3]), redis.call('HLEN', KEYS[2])
    if parts then
        local _
        count, dropped, fields, given, bytes, state_bytes, _, last_key = struct.unpack(PARTS, parts)
        if stored ~= count or stored_fields ~= fields
            or (given > 0 and redis.call('HLEN', KEYS[4]) ~= given) then
            return {'partial'}
        end
    else  -- of 0.1
        count, fields, state_bytes = stored, stored_fields, -1
        bytes = tonumber(redis.call('HGET', KEYS[1], 'b')) or 0
    end
end

local function newest()
    if window == 0 or count == 0 then return {} end
    return redis.call('LRANGE', KEYS[3], -window, -1)
end

local applied = log and is_applied(log, writer, commit_number)
if applied == 'stale' then return {'stale'} end
if applied then
    local otherwise = {}  -- the messages that were there already are stored with other bytes
    if onces > 0 then
        for place = 1, #ARGV[first_once], 4 do
            local number = struct.unpack('<I4', ARGV[first_once], place)
            local message = ARGV[first_append + number]
            local _, element = locate(string.sub(message, 1, 10), count, given, given_id(message) or '', dropped)
            if element and data_of(element) ~= data_of(message) then otherwise[#otherwise + 1] = number end
        end
    end
    return {tonumber(version), count, dropped, in_reply(time_left(ttl, created, max_age, now)), now, ttl,
        index_is_due(owner, due, indexed, 0, now) and owner, last_key, dropped + count, '', '', 1,
        otherwise, newest()}
end

-- What may be refused comes first. What is wrong with it, Change.refuse_unless_fits says.
if lease and not is_held_by(lease, now) then return {'lost'} end
local unfit
if version then
    unfit = create == MUST_BE_NEW or (expected >= 0 and expected ~= tonumber(version))
        or (owner and ((owner_arg ~= '' and owner ~= owner_arg) or (visitor ~= '' and visitor ~= '=' .. owner)))
else
    unfit = create == MUST_EXIST or expected > 0 or (unless_deleted == 1 and kind == 'deleted')
end
if unfit then return {'unfit', version, owner, kind == 'deleted' and 1 or 0} end

local function is_changed(value, digest)
    return (value and redis.sha1hex(value) or '') ~= digest
end

local elsewhere = {}
for i = first_expect, first_replace - 1, 2 do
    local value = version and redis.call('HGET', KEYS[2], ARGV[i])
    if is_changed(value, ARGV[i + 1]) then
        elsewhere[#elsewhere + 1] = {ARGV[i], value}
    end
end
local gone, replacements = {}, {}
for i = first_replace, first_append - 1, 4 do
    local index, element
    if version then index, element = locate(ARGV[i], count, given, ARGV[i + 1], dropped) end
    local data = element and data_of(element)
    if not element or (ARGV[i + 2] ~= '' and is_changed(data, ARGV[i + 2])) then
        gone[#gone + 1] = {ARGV[i + 1], data}
    else
        replacements[#replacements + 1] = {index, element, i}
    end
end
if #elsewhere > 0 or #gone > 0 then return {'diverged', elsewhere, gone} end

local kept = keep >= 0 and math.min(count, math.max(0, keep - dropped)) or count
local existing, is_existing, twice = {}, {}, {}
if onces > 0 then
    for place = 1, #ARGV[first_once], 4 do
        local number = struct.unpack('<I4', ARGV[first_once], place)
        local message = ARGV[first_append + number]
        local where = string.sub(message, 1, 10)
        local index = version and locate(where, count, given, given_id(message) or '', dropped)
        if (index and index < kept) or twice[where] then
            is_existing[first_append + number] = true
            existing[#existing + 1] = number
        end
        twice[where] = true
    end
end
local total = kept + appends - #existing
if max_messages >= 0 and appends > 0 and total > max_messages and drop_oldest == 0 then
    return {'full', total}
end

-- How large the state is, is known as an upper bound. It is only added up where that is too large.
if sets > 0 or adds > 0 then
    local known, grown = state_bytes >= 0, state_bytes
    for i = first_set, first_unset - 1 do grown = grown + #ARGV[i] end
    for i = first_add, first_expect - 1, 2 do grown = grown + #ARGV[i] + COUNTER_SIZE end
    if max_state >= 0 and (not known or grown > max_state) then
        local before, after, size_of = 0, 0, {}
        local stored = version and redis.call('HGETALL', KEYS[2]) or {}
        local value_of = {}
        for i = 1, #stored, 2 do
            before = before + #stored[i] + #stored[i + 1]
            size_of[stored[i]], value_of[stored[i]] = #stored[i + 1], stored[i + 1]
        end
        for i = first_set, first_unset - 1, 2 do
            size_of[ARGV[i]], value_of[ARGV[i]] = #ARGV[i + 1], ARGV[i + 1]
        end
        for i = first_unset, first_add - 1 do size_of[ARGV[i]], value_of[ARGV[i]] = nil, nil end
        for i = first_add, first_expect - 1, 2 do
            local sum = (tonumber(value_of[ARGV[i]]) or 0) + ARGV[i + 1]
            size_of[ARGV[i]] = #string.format('%.0f', sum)
        end
        for key, size in pairs(size_of) do after = after + #key + size end
        if after > max_state and after > before then return {'large', after} end
        grown = after
    end
    state_bytes = (known or max_state >= 0) and grown or -1
end

-- State, messages and ids of a conversation whose meta hash was evicted are not the new one's. They are
-- deleted only where there are any: after the first write a server no longer says that it is out of
-- memory.
if not version and redis.call('EXISTS', KEYS[2], KEYS[3], KEYS[4]) > 0 then
    redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
end

-- Return what to answer where a counter could not be added to: its reason, or else the server's.
local function why_not_added(failed, field)
    if string.find(failed.err, 'hash value is not an integer', 1, true) then
        local digits = string.find(redis.call('HGET', KEYS[2], field), '^-?%d+$')
        return {digits and 'overflow' or 'number', field}
    end
    if string.find(failed.err, 'overflow', 1, true) or string.find(failed.err, 'out of range', 1, true) then
        return {'overflow', field}
    end
    return failed
end

-- Counters come first, for they alone may fail. What they count from may be set or unset by the
-- same change; and if one fails, all are put back.
local had_state = fields > 0
if adds > 0 then
    local set, unset, before = {}, {}, {}
    for i = first_set, first_unset - 1, 2 do set[ARGV[i]] = ARGV[i + 1] end
    for i = first_unset, first_add - 1 do unset[ARGV[i]] = true end
    for i = first_add, first_expect - 1, 2 do
        local field = ARGV[i]
        before[field] = redis.call('HGET', KEYS[2], field)
        if unset[field] then
            redis.call('HDEL', KEYS[2], field)
        elseif set[field] then
            redis.call('HSET', KEYS[2], field, set[field])
        end
        local sum = redis.pcall('HINCRBY', KEYS[2], field, ARGV[i + 1])
        if type(sum) == 'table' then
            local answer = why_not_added(sum, field)
            for changed, value in pairs(before) do
                if value then
                    redis.pcall('HSET', KEYS[2], changed, value)
                else
                    redis.pcall('HDEL', KEYS[2], changed)
                end
            end
            if lasts and lasts > 0 then redis.pcall('PEXPIRE', KEYS[2], lasts - now) end
            return answer
        end
    end
    for i = first_add, first_expect - 1, 2 do
        set[ARGV[i]], unset[ARGV[i]] = nil, nil
    end
    for field, value in pairs(set) do
        if not unset[field] then redis.call('HSET', KEYS[2], field, value) end
    end
    for field in pairs(unset) do redis.call('HDEL', KEYS[2], field) end
    fields, had_state = redis.call('HLEN', KEYS[2]), false  -- the key may be another one by now
else
    for from = first_set, first_unset - 1, CHUNK do
        fields = fields + redis.call('HSET', KEYS[2], unpack(ARGV, from, math.min(from + CHUNK, first_unset) - 1))
    end
    for from = first_unset, first_add - 1, CHUNK do
        fields = fields - redis.call('HDEL', KEYS[2], unpack(ARGV, from, math.min(from + CHUNK, first_add) - 1))
    end
end

for _, replacement in ipairs(replacements) do
    local index, element, i = unpack(replacement)
    local stored, data = ARGV[i + 1], ARGV[i + 3]
    local header
    if string.byte(element) == OLD then
        header = NO_KEY .. string.char(#stored) .. stored
    else
        header = string.sub(element, 1, HEADER + string.byte(element, HEADER))
    end
    redis.call('LSET', KEYS[3], index, header .. data)
    bytes = bytes + #data - bytes_of(element)
end

local function forget_ids(elements)
    for _, element in ipairs(elements) do
        bytes = bytes - bytes_of(element)
        local known = given > 0 and given_id(element)
        if known then given = given - redis.call('HDEL', KEYS[4], locator(known)) end
    end
end

local had_messages = kept > 0
local others
if kept < count then
    forget_ids(redis.call('LRANGE', KEYS[3], kept, -1))
    if kept == 0 then
        redis.call('DEL', KEYS[3])
    else
        redis.call('LTRIM', KEYS[3], 0, kept - 1)
    end
    count = kept
    others = newest()
elseif window > 0 and (seen_position ~= dropped + count or seen_key ~= last_key) then
    others = newest()
    local seen_hi, seen_lo = struct.unpack(KEY, seen_key)
    local first = #others + 1
    while first > 1 do
        local hi, lo = key_of(others[first - 1])
        if hi < seen_hi or (hi == seen_hi and lo <= seen_lo) then break end
        first = first - 1
    end
    local is_cut = first == 1 and #others < count
    if not is_cut and dropped + count - #others + first - 1 == seen_position then
        local since = {}
        for i = first, #others do since[#since + 1] = others[i] end
        others = since
    end
end
local others_end = dropped + count

-- Take each message's own key, if it is above the last one, and not far ahead of our clock. Else give
-- it the next one.
local had_ids = given > 0
if appends > 0 then
    local last_hi, last_lo = struct.unpack(KEY, last_key)
    local elements = {}
    for i = first_append, first_once - 1 do
        local element = ARGV[i]
        if not is_existing[i] then
            local hi, lo = struct.unpack(KEY, element)
            if hi <= now + 60000 and (hi > last_hi or (hi == last_hi and lo > last_lo)) then
                last_hi, last_lo = hi, lo
            else
                last_lo = last_lo + 1
                if last_lo == 4294967296 then last_hi, last_lo = last_hi + 1, 0 end
                local place, size = string.sub(element, 1, 10), string.byte(element, HEADER)
                local name = size > 0 and string.sub(element, HEADER + 1, HEADER + size)
                    or to_hex(place)
                local key = struct.pack(KEY, last_hi, last_lo)
                given = given + redis.call('HSET', KEYS[4], place, key)
                element = key .. string.char(#name) .. name .. data_of(element)
            end
            elements[#elements + 1] = element
            bytes = bytes + bytes_of(element)
        end
    end
    last_key = struct.pack(KEY, last_hi, last_lo)
    for from = 1, #elements, CHUNK do
        count = redis.call('RPUSH', KEYS[3], unpack(elements, from, math.min(from + CHUNK - 1, #elements)))
    end
end
if drop_oldest == 1 and appends > 0 and max_messages >= 0 and count > max_messages then
    dropped = dropped + count - max_messages
    forget_ids(redis.call('LPOP', KEYS[3], count - max_messages))
    count = max_messages
end

version = (tonumber(version) or 0) + 1
local former_ttl = tonumber(ttl)
ttl = new_ttl >= 0 and new_ttl or former_ttl or default_ttl
if not former_ttl then
    created, due = now, 0
    if kind == 'deleted' then redis.call('HDEL', KEYS[1], 'gone') end
    redis.call('HSET', KEYS[1], 'id', id, 'c', created, 't', ttl, 'x', 0)
elseif ttl ~= former_ttl then
    due = 0  -- or the index might expire before the conversation
    redis.call('HSET', KEYS[1], 't', ttl, 'x', 0)
end
if owner_arg ~= '' and not owner then
    owner, due = owner_arg, 0
    redis.call('HSET', KEYS[1], 'o', owner, 'x', 0)
end
chain = string.sub(redis.sha1hex((chain or '') .. writer .. struct.pack('<dd', commit_number, now)), 1, 20)
if not parts then redis.call('HDEL', KEYS[1], 'l', 'b') end  -- of 0.1
local left = time_left(ttl, created, max_age, now)
local slid = slide(left, lasts, now, redis.call)
if slid == lasts and slid > 0 then
    -- What has begun to exist with this commit, has no time to live yet.
    if not had_state and fields > 0 then redis.call('PEXPIRE', KEYS[2], slid - now) end
    if not had_messages and count > 0 then redis.call('PEXPIRE', KEYS[3], slid - now) end
    if not had_ids and given > 0 then redis.call('PEXPIRE', KEYS[4], slid - now) end
end
redis.call('HSET', KEYS[1], 'v', version, 'a', now,
    'w', adding(log or '', writer, commit_number, floor, now),
    'p', struct.pack(PARTS, count, dropped, fields, given, bytes, state_bytes, now, last_key), 'e', slid,
    'h', chain)
if lease and release == 1 then leave_queue(lease, now) end
local answer = {version, count, dropped, in_reply(left), now, ttl,
    index_is_due(owner, due, indexed, now, now) and owner, last_key, others_end,
    etag_of(version, chain), follows}
if #existing > 0 or (others and #others > 0) then
    answer[12], answer[13], answer[14] = 0, existing, others or {}
end
return answer
