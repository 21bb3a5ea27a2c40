-- The line for turns of a conversation, which is the last key of each script that begins with this.
-- It is a string of places in the order in which they were taken: a lease (16 bytes) and the moment
-- (ms) until which its place is kept. Who stands first has the turn.
local LINE = KEYS[#KEYS]
local PLACE, PLACE_SIZE = '<c16d', 24

-- Return the places that are still kept. Whatever else is under the key counts as nobody.
local function places_kept(now)
    local packed, places = redis.pcall('GET', LINE), {}
    if type(packed) ~= 'string' then return places end
    for at = 1, #packed - PLACE_SIZE + 1, PLACE_SIZE do
        local lease, kept = struct.unpack(PLACE, string.sub(packed, at, at + PLACE_SIZE - 1))
        if kept > now then places[#places + 1] = {lease, kept} end
    end
    return places
end

local function keep_places(places, now)
    local packed, latest = {}, now
    for at, place in ipairs(places) do
        packed[at] = struct.pack(PLACE, place[1], place[2])
        latest = math.max(latest, place[2])
    end
    if latest > now then
        redis.call('SET', LINE, table.concat(packed), 'PX', latest - now)
    else
        redis.call('DEL', LINE)
    end
end

local function leave(lease, now)
    local places = {}
    for _, place in ipairs(places_kept(now)) do
        if place[1] ~= lease then places[#places + 1] = place end
    end
    keep_places(places, now)
end

local function is_held_by(lease, now)
    local places = places_kept(now)
    return #places > 0 and places[1][1] == lease
end
