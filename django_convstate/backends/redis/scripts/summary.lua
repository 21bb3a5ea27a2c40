-- Describe a conversation without loading it, and without prolonging its life.
-- KEYS: meta, state, messages.  ARGV: keys of the state whose values are asked for.
local id, version, owner, created, accessed, parts, bytes =
    unpack(redis.call('HMGET', KEYS[1], 'id', 'v', 'o', 'c', 'a', 'p', 'b'))
if not version then return false end
local size, modified = tonumber(bytes) or 0, accessed
if parts then
    local _
    _, _, _, _, size, _, modified = struct.unpack('<I4I4I4I4ddd', parts)
end
for _, key in ipairs(redis.call('HKEYS', KEYS[2])) do
    size = size + #key + redis.call('HSTRLEN', KEYS[2], key)
end
local time, left = redis.call('TIME'), redis.call('PTTL', KEYS[1])
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return {
    id, version, owner, created, tostring(modified), accessed, left < 0 and -1 or now + left,
    redis.call('LLEN', KEYS[3]), size, #ARGV > 0 and redis.call('HMGET', KEYS[2], unpack(ARGV)) or {},
}
