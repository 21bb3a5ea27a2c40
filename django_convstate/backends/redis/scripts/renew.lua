-- Keep a turn. Follows line.lua.  KEYS: line.  ARGV: lease, ms.  Returns 1, or 0: it is not theirs.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local places = places_kept(now)
if #places == 0 or places[1][1] ~= ARGV[1] then return 0 end
places[1][2] = now + ARGV[2]
keep_places(places, now)
return 1
