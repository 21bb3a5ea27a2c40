-- Delete a conversation, if it has the expected version, has been idle for long, and is the owner's.
-- What is left is known for a day: that it was deleted.
-- KEYS: meta, state, messages, ids.
-- ARGV: for how long that is known (ms), and, each '' for none: expected version, idle (ms), owner,
--       '1' for a dry run.
-- Returns {1, owner}, {0} where there is none, {2} where it is in use or another owner's,
-- or {'unfit', version, nil}.
local version, owner, accessed = unpack(redis.call('HMGET', KEYS[1], 'v', 'o', 'a'))
if not version then
    -- What an evicting server has left of one is gone, too.
    if ARGV[5] == '' then redis.call('DEL', KEYS[2], KEYS[3], KEYS[4]) end
    return {0}
end
if ARGV[2] ~= '' and ARGV[2] ~= version then return {'unfit', version, false} end
if ARGV[3] ~= '' then
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    if now - (tonumber(accessed) or now) < tonumber(ARGV[3]) then return {2} end
end
if ARGV[4] ~= '' and ARGV[4] ~= owner then return {2} end
if ARGV[5] == '' then
    redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
    redis.call('HSET', KEYS[1], 'gone', '')
    redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return {1, owner}
