-- Read messages by their positions.
-- KEYS: meta, state, messages.  ARGV: start, stop (not included).
-- Returns {position of the first, elements}; none without meta, which may have been evicted.
local version, parts = unpack(redis.call('HMGET', KEYS[1], 'v', 'p'))
if not version then return {0, {}} end
local dropped = 0
if parts then
    local _
    _, dropped = struct.unpack('<I4I4', parts)
end
local first, last = math.max(ARGV[1] - dropped, 0), ARGV[2] - dropped - 1
if last < first then return {0, {}} end
return {first + dropped, redis.call('LRANGE', KEYS[3], first, last)}
