-- Move a conversation to another id, and leave behind where it has gone. Follows common.lua.
-- KEYS: meta, state, messages, ids; and the same of the new id.
-- ARGV: new id, expected version (or ''), for how long the old id counts as deleted (ms).
-- Returns {1, owner, ttl, when it was saved}, {0} where there is none, {'unfit', version, nil}, {'taken'} or {'corrupt'}.
local id, version, owner, created, ttl, parts =
    unpack(redis.call('HMGET', KEYS[1], 'id', 'v', 'o', 'c', 't', 'p'))
local now = clock()
local kind = kind_of(id, version, created, ttl)
if kind == 'corrupt' then return {'corrupt'} end
if kind ~= 'conversation' then
    return {redis.call('HGET', KEYS[1], 'gone') == ARGV[1] and 1 or 0}
end
if ARGV[2] ~= '' and ARGV[2] ~= version then return {'unfit', version, false} end
if redis.call('HEXISTS', KEYS[5], 'v') == 1 then return {'taken'} end
for at = 1, 4 do
    if redis.call('EXISTS', KEYS[at]) == 1 then redis.call('RENAME', KEYS[at], KEYS[at + 4]) end
end
redis.call('HSET', KEYS[5], 'id', ARGV[1], 'a', now, 'x', 0)
redis.call('HSET', KEYS[1], 'gone', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {1, owner, ttl, last_saved(parts, now)}
