-- Make a staged conversation visible under its id. Follows common.lua.
-- KEYS: meta, state, messages, ids; staged messages and ids.
-- ARGV: id, owner (or ''), version, created, accessed (ms), ttl (ms), max_age (ms, or -1), parts,
--       '1' to refuse if it was deleted, the version that it takes the place of (or ''), a
--       chain that no other conversation has (see common.lua), and then the state: keys and values.
-- Returns {1, owner}, {'taken'}, {'changed'}, {'deleted'}, or {'partial'} where not all is staged any
-- more.
local CHUNK = 4000
local function finish(...)
    redis.call('DEL', KEYS[5], KEYS[6])
    return {...}
end
local stored = redis.call('HGET', KEYS[1], 'v')
if stored and ARGV[10] == '' then return finish('taken') end
if (stored or '') ~= ARGV[10] then return finish('changed') end
if ARGV[9] == '1' and redis.call('HEXISTS', KEYS[1], 'gone') == 1 then return finish('deleted') end
local count, _, _, given = struct.unpack(PARTS, ARGV[8])
if redis.call('LLEN', KEYS[5]) ~= count or redis.call('HLEN', KEYS[6]) ~= given then
    return finish('partial')
end
local now = clock()
local left = time_left(ARGV[6], ARGV[4], tonumber(ARGV[7]), tonumber(ARGV[5]))
if left ~= math.huge then left = left - (now - ARGV[5]) end
if stored or left > 0 then redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4]) end
if left <= 0 then return finish(1) end
for from = 12, #ARGV, CHUNK do
    redis.call('HSET', KEYS[2], unpack(ARGV, from, math.min(from + CHUNK - 1, #ARGV)))
end
if count > 0 then redis.call('RENAME', KEYS[5], KEYS[3]) end
if given > 0 then redis.call('RENAME', KEYS[6], KEYS[4]) end
redis.call('HSET', KEYS[1], 'id', ARGV[1], 'v', ARGV[3], 'c', ARGV[4], 'a', ARGV[5], 't', ARGV[6],
    'p', ARGV[8], 'x', 0, 'h', ARGV[11])
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'o', ARGV[2]) end
redis.call('HSET', KEYS[1], 'e', slide(left, nil, now, redis.call))
return {1}
