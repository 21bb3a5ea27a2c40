-- The queue of leases of a conversation, which is the last key of each script that begins with this:
-- a string of entries in the order of arrival, each a lease (16 bytes) and the time (ms) at which it
-- expires. The first entry holds the turn.
local QUEUE = KEYS[#KEYS]
local ENTRY, ENTRY_SIZE = '<c16d', 24
local LONGEST = 366 * 24 * 3600 * 1000  -- ms that a lease may last; one that lasts longer is damage

-- Return the entries that have not expired. Any other type of value under the key counts as none.
local function read_queue(now)
    local packed, entries = redis.pcall('GET', QUEUE), {}
    if type(packed) ~= 'string' then return entries end
    for at = 1, #packed - ENTRY_SIZE + 1, ENTRY_SIZE do
        local lease, expires = struct.unpack(ENTRY, string.sub(packed, at, at + ENTRY_SIZE - 1))
        if expires > now and expires < now + LONGEST then entries[#entries + 1] = {lease, expires} end
    end
    return entries
end

local function write_queue(entries, now)
    local packed, latest = {}, now
    for at, entry in ipairs(entries) do
        packed[at] = struct.pack(ENTRY, entry[1], entry[2])
        latest = math.max(latest, entry[2])
    end
    if latest > now then
        redis.call('SET', QUEUE, table.concat(packed), 'PX', latest - now)
    else
        redis.call('DEL', QUEUE)
    end
end

local function leave_queue(lease, now)
    local entries = {}
    for _, entry in ipairs(read_queue(now)) do
        if entry[1] ~= lease then entries[#entries + 1] = entry end
    end
    write_queue(entries, now)
end

local function is_held_by(lease, now)
    local entries = read_queue(now)
    return #entries > 0 and entries[1][1] == lease
end
