-- Delete a conversation, if it has the expected version, has been idle for long, and is the owner's.
-- KEYS: meta, state, messages.
-- ARGV: expected version, idle (ms), owner, '1' for a dry run: each may be '' for none.
-- Returns {1, owner}, {0} where there is none, {2} where it is in use or another owner's,
-- or {'unfit', version, nil}.
local version, owner, accessed = unpack(redis.call('HMGET', KEYS[1], 'v', 'o', 'a'))
if not version then return {0} end
if ARGV[1] ~= '' and ARGV[1] ~= version then return {'unfit', version, false} end
if ARGV[2] ~= '' then
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    if now - (tonumber(accessed) or now) < tonumber(ARGV[2]) then return {2} end
end
if ARGV[3] ~= '' and ARGV[3] ~= owner then return {2} end
if ARGV[4] == '' then redis.call('DEL', KEYS[1], KEYS[2], KEYS[3]) end
return {1, owner}
