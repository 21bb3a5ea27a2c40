-- Describe a conversation without loading it, and without prolonging its life.
-- KEYS: meta, state, messages.
local id, version, owner, created, accessed, bytes =
    unpack(redis.call('HMGET', KEYS[1], 'id', 'v', 'o', 'c', 'a', 'b'))
if not version then return false end
local size = tonumber(bytes) or 0
for _, text in ipairs(redis.call('HGETALL', KEYS[2])) do
    size = size + #text
end
return {
    id, version, owner, created, accessed, redis.call('PTTL', KEYS[1]),
    redis.call('LLEN', KEYS[3]), size,
}
