-- Which commits were applied, by writer and number: the bytes of backends/toolkit/commit_log.py, in
-- which the latest writer comes last.
local ENTRY = '<c8I4dH'
local WRITER_MS, MAX_RANGES = 24 * 3600 * 1000, 4096
-- Most logs have one writer and one range of numbers.
local ONE, ONE_SIZE = '<c8I4dHI4I4', 30

-- Return where the entry of a writer begins and ends, its floor, and the ranges of numbers that were
-- applied from there on.
local function entry_of(log, writer)
    local at = 1
    while at <= #log do
        local found, _, floor, count, first = struct.unpack(ENTRY, log, at)
        local after = first + 8 * count
        if found == writer then
            local ranges = {}
            for place = first, after - 1, 8 do
                local distance, length = struct.unpack('<I4I4', log, place)
                ranges[#ranges + 1] = {floor + distance, floor + distance + length - 1}
            end
            return at, after, floor, ranges
        end
        at = after
    end
end

-- Tell whether a commit was applied; 'stale' where that cannot be told any more.
local function is_applied(log, writer, number)
    if #log == ONE_SIZE then
        local found, _, floor, _, distance, length = struct.unpack(ONE, log)
        if found ~= writer or number >= floor + distance + length then return false end
    elseif not string.find(log, writer, 1, true) then
        return false
    end
    local _, _, floor, ranges = entry_of(log, writer)
    if not floor then return false end
    if number < floor then return 'stale' end
    for _, range in ipairs(ranges) do
        if range[1] <= number and number <= range[2] then return true end
    end
    return false
end

-- Return ranges of numbers from `floor` on, with one number more.
local function with_number(ranges, number, floor)
    ranges[#ranges + 1] = {number, number}
    table.sort(ranges, function(one, other) return one[1] < other[1] end)
    local joined = {}
    for _, range in ipairs(ranges) do
        local first, last = math.max(range[1], floor), range[2]
        local before = joined[#joined]
        if before and first <= before[2] + 1 then
            before[2] = math.max(before[2], last)
        elseif last >= floor then
            joined[#joined + 1] = {first, last}
        end
    end
    return joined
end

-- Return the log with one commit more, and without the writers of more than a day ago.
local function adding(log, writer, number, lowest, now)
    if number == lowest and (log == '' or #log == ONE_SIZE) then
        local found, _, floor, _, distance, length = writer, 0, 0, 0, 0, 0
        if log ~= '' then found, _, floor, _, distance, length = struct.unpack(ONE, log) end
        if found == writer and floor + distance + length <= number then
            return struct.pack(ONE, writer, math.floor(now / 1000), number, 1, 0, 1)
        end
    end
    local begin, after, floor, ranges
    if string.find(log, writer, 1, true) then
        begin, after, floor, ranges = entry_of(log, writer)
    end
    if begin then
        log = string.sub(log, 1, begin - 1) .. string.sub(log, after)
    end
    floor = math.max(floor or lowest, lowest)
    ranges = with_number(ranges or {}, number, floor)
    local first = math.max(1, #ranges - MAX_RANGES + 1)
    if first > 1 then floor = ranges[first][1] end  -- what is below can no longer be judged
    local oldest = 1
    while oldest <= #log do
        local _, seconds, _, count, numbers = struct.unpack(ENTRY, log, oldest)
        if seconds * 1000 + WRITER_MS > now then break end
        oldest = numbers + 8 * count
    end
    local parts = {
        string.sub(log, oldest),
        struct.pack(ENTRY, writer, math.floor(now / 1000), floor, #ranges - first + 1),
    }
    for at = first, #ranges do
        local from, to = ranges[at][1], ranges[at][2]
        parts[#parts + 1] = struct.pack('<I4I4', from - floor, to - from + 1)
    end
    return table.concat(parts)
end
