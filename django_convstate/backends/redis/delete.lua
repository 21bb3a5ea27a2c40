-- Delete a conversation, if it has the expected version.
-- KEYS: meta, state, messages.  ARGV: expected version (or '').
-- Returns {1, owner}, {0} where there is none, or {'version', version}.
local version, owner = unpack(redis.call('HMGET', KEYS[1], 'v', 'o'))
if not version then return {0} end
if ARGV[1] ~= '' and ARGV[1] ~= version then return {'version', version} end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
return {1, owner}
