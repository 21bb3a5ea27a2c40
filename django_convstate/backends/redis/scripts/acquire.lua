-- Stand in line for a turn, and load the conversation if it is ours. Follows line.lua, meta.lua, and
-- load.lua as a function.
-- KEYS: meta, state, messages, line.  ARGV: window, max_age (ms, or ''), lease, ms.
-- Returns {0, what load returns}, or {how many are before us}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local places = places_kept(now)
local mine = #places + 1
for at, place in ipairs(places) do
    if place[1] == ARGV[3] then mine = at end
end
places[mine] = {ARGV[3], now + ARGV[4]}
keep_places(places, now)
if mine > 1 then return {mine - 1} end
return {0, load()}
