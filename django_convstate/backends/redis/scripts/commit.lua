-- Apply a change wholly or not at all, exactly once, and slide the expiry.
-- Follows lease_queue.lua and common.lua.
-- KEYS: meta, state, messages; and the queue, if there is a lease.
-- ARGV: id, head, commit id (8 bytes), owner (or ''), then the keys to set with their values, the keys
--       to unset, the keys to add to with their numbers, the messages to append, and the lease.
-- The head is 12 numbers, of which -1 stands for none, as operations.py packs them: create rule, expected
--       version, ttl (ms), default ttl (ms), max_age (ms), messages to keep, how many commits to remember,
--       how many there are to set, to unset, to add to and to append, and 1 to give up the lease.
-- Returns {version, message count, ms left, now, ttl, owner whose index is due (or nil)}, or
-- {name of an error, ...}.
local MUST_BE_NEW, MUST_EXIST = 1, 2
local RECORD = '<c8I4I4d'  -- a remembered commit, as CommitLog in stored.py has it
local SIZE = 24
local CHUNK = 4000  -- unpack gives up near 8000 values

local id, key, claimant = ARGV[1], ARGV[3], ARGV[4]
local create, expected, new_ttl, default_ttl, max_age, keep, remembered, sets, unsets, adds, appends,
    release = struct.unpack('<dddddddddddd', ARGV[2])
local lease = #KEYS == 4 and ARGV[#ARGV]
local stored_id, version, owner, created, ttl, log, due =
    unpack(redis.call('HMGET', KEYS[1], 'id', 'v', 'o', 'c', 't', 'l', 'x'))
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

if kind_of(stored_id, version, created, ttl) == 'corrupt' then return {'corrupt'} end
if version and max_age >= 0 and created + max_age <= now then
    redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
    version, owner, created, ttl, log, due = false, false, false, false, false, false
end

for at = 1, #(log or ''), SIZE do
    if string.sub(log, at, at + 7) == key then
        local _, was, count, expires = struct.unpack(RECORD, string.sub(log, at, at + SIZE - 1))
        return {was, count, math.floor(expires * 1000 + 0.5) - now, now, ttl,
            index_is_due(owner, due, now) and owner}
    end
end

if lease and not is_held_by(lease, now) then return {'lost'} end
-- What is wrong with it, Change.refuse_unless_fits says.
local unfit
if version then
    unfit = create == MUST_BE_NEW or (expected >= 0 and expected ~= tonumber(version))
        or (claimant ~= '' and owner and owner ~= claimant)
else
    unfit = create == MUST_EXIST or expected > 0
end
if unfit then return {'unfit', version, owner} end
-- State or messages of a conversation whose meta hash was evicted are not the new one's. They are
-- deleted only where there are any: after the first write a server no longer says that it is out of
-- memory.
if not version and redis.call('EXISTS', KEYS[2], KEYS[3]) > 0 then
    redis.call('DEL', KEYS[2], KEYS[3])
end

local first_set = 5
local first_unset = first_set + 2 * sets
local first_add = first_unset + unsets
local first_append = first_add + 2 * adds

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
if adds > 0 then
    local set, unset, before = {}, {}, {}
    for i = first_set, first_unset - 1, 2 do set[ARGV[i]] = ARGV[i + 1] end
    for i = first_unset, first_add - 1 do unset[ARGV[i]] = true end
    for i = first_add, first_append - 1, 2 do
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
            return answer
        end
    end
    for i = first_add, first_append - 1, 2 do
        set[ARGV[i]], unset[ARGV[i]] = nil, nil
    end
    for field, value in pairs(set) do
        if not unset[field] then redis.call('HSET', KEYS[2], field, value) end
    end
    for field in pairs(unset) do redis.call('HDEL', KEYS[2], field) end
else
    for from = first_set, first_unset - 1, CHUNK do
        redis.call('HSET', KEYS[2], unpack(ARGV, from, math.min(from + CHUNK, first_unset) - 1))
    end
    for from = first_unset, first_add - 1, CHUNK do
        redis.call('HDEL', KEYS[2], unpack(ARGV, from, math.min(from + CHUNK, first_add) - 1))
    end
end

local bytes = 0
if keep >= 0 then
    for _, dropped in ipairs(redis.call('LRANGE', KEYS[3], keep, -1)) do
        bytes = bytes - #dropped
    end
    if keep == 0 then
        redis.call('DEL', KEYS[3])
    else
        redis.call('LTRIM', KEYS[3], 0, keep - 1)
    end
end
for from = first_append, first_append + appends - 1, CHUNK do
    local to = math.min(from + CHUNK, first_append + appends) - 1
    redis.call('RPUSH', KEYS[3], unpack(ARGV, from, to))
    for i = from, to do bytes = bytes + #ARGV[i] end
end

version = (tonumber(version) or 0) + 1
created = created or now
local former_ttl = tonumber(ttl)
ttl = new_ttl >= 0 and new_ttl or former_ttl or default_ttl
local left = ttl
if max_age >= 0 then
    left = math.min(left, created + max_age - now)
end
if claimant ~= '' and not owner then
    owner, due = claimant, 0
    redis.call('HSET', KEYS[1], 'o', owner)
end
if ttl ~= former_ttl then due = 0 end  -- or the index might expire before the conversation
local count = redis.call('LLEN', KEYS[3])
local record = struct.pack(RECORD, key, version, count, (now + left) / 1000)
log = string.sub((log or '') .. record, -SIZE * remembered)
redis.call('HSET', KEYS[1], 'id', id, 'v', version, 'c', created, 'a', now, 't', ttl, 'l', log,
    'x', due or 0)
if bytes ~= 0 then redis.call('HINCRBY', KEYS[1], 'b', bytes) end
redis.call('PEXPIRE', KEYS[1], left)
redis.call('PEXPIRE', KEYS[2], left)
redis.call('PEXPIRE', KEYS[3], left)
if lease and release == 1 then leave_queue(lease, now) end
return {version, count, left, now, ttl, index_is_due(owner, due, now) and owner}
