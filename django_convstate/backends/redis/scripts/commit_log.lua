-- Which commits were applied, by writer and number: the bytes of backends/toolkit/commit_log.py, in
-- which the latest writer comes last.
local ENTRY = '<c8I4dH'
local WRITER_MS, MAX_NUMBERS = 24 * 3600 * 1000, 4096

-- Return where the entry of a writer begins and ends, its floor, and the numbers applied from there on.
local function entry_of(log, writer)
    local at = 1
    while at <= #log do
        local found, _, floor, count, first = struct.unpack(ENTRY, log, at)
        local after = first + 4 * count
        if found == writer then
            local numbers = {}
            for place = first, after - 1, 4 do
                numbers[#numbers + 1] = floor + struct.unpack('<I4', log, place)
            end
            return at, after, floor, numbers
        end
        at = after
    end
end

-- Most logs have one writer and one number.
local ONE, ONE_SIZE = '<c8I4dHI4', 26

-- Tell whether a commit was applied; 'stale' where nobody knows any more.
local function is_applied(log, writer, number)
    if #log == ONE_SIZE then
        local found, _, floor, _, distance = struct.unpack(ONE, log)
        if found ~= writer or number > floor + distance then return false end
    elseif not string.find(log, writer, 1, true) then
        return false
    end
    local _, _, floor, numbers = entry_of(log, writer)
    if not floor then return false end
    if number < floor then return 'stale' end
    for _, applied in ipairs(numbers) do
        if applied == number then return true end
    end
    return false
end

-- Return the log with one commit more, and without the writers of more than a day ago.
local function adding(log, writer, number, lowest, now)
    if number == lowest and (log == '' or #log == ONE_SIZE and string.sub(log, 1, 8) == writer) then
        return struct.pack(ONE, writer, math.floor(now / 1000), number, 1, 0)
    end
    local begin, after, floor, numbers
    if string.find(log, writer, 1, true) then
        begin, after, floor, numbers = entry_of(log, writer)
    end
    if begin then
        log = string.sub(log, 1, begin - 1) .. string.sub(log, after)
    end
    floor, numbers = math.max(floor or lowest, lowest), numbers or {}
    local kept = {}
    for _, applied in ipairs(numbers) do
        if applied >= floor then kept[#kept + 1] = applied end
    end
    kept[#kept + 1] = number
    table.sort(kept)
    if #kept >= MAX_NUMBERS then  -- the lowest can no longer be judged
        kept = {unpack(kept, #kept - MAX_NUMBERS + 1)}
        floor = kept[1]
    end
    local oldest = 1
    while oldest <= #log do
        local _, seconds, _, count, first = struct.unpack(ENTRY, log, oldest)
        if seconds * 1000 + WRITER_MS > now then break end
        oldest = first + 4 * count
    end
    local parts = {
        string.sub(log, oldest),
        struct.pack(ENTRY, writer, math.floor(now / 1000), floor, #kept),
    }
    for _, applied in ipairs(kept) do parts[#parts + 1] = struct.pack('<I4', applied - floor) end
    return table.concat(parts)
end
