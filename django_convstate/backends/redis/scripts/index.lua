-- Add conversations to their owner's index, and remove those that must have expired.
-- Follows index_forms.lua.
-- ARGV: former id of the conversation (or ''), and then for each: id, ttl (ms; 0: for ever), when it
--       was last saved (ms).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[1] ~= '' then remove({ARGV[1]}) end
local lasts = 0
for at = 2, #ARGV, 3 do
    local id, ttl, saved = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2]
    local score = ttl == 0 and NEVER or OFFSET + now + 2 * ttl + 60000
    local known = tonumber(redis.call('ZSCORE', KEYS[1], id) or 0)
    if score > known or known >= NEVER then
        redis.call('ZADD', KEYS[1], string.format('%.0f', score), id)
    end
    redis.call('ZADD', KEYS[2], 'GT', saved, id)
    lasts = math.max(lasts, 2 * ttl + 60000)
end
remove(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now))
remove(redis.call('ZRANGEBYSCORE', KEYS[1], OFFSET, OFFSET + now))
if redis.call('ZCOUNT', KEYS[1], NEVER, '+inf') > 0 then
    for _, key in ipairs(KEYS) do redis.call('PERSIST', key) end
else
    for _, key in ipairs(KEYS) do lasts = math.max(lasts, redis.call('PTTL', key)) end
    for _, key in ipairs(KEYS) do
        if redis.call('PTTL', key) < lasts then redis.call('PEXPIRE', key, lasts) end
    end
end
return 1
