-- Tell how what is stored under the keys of a conversation is, and change nothing.
-- Follows common.lua and soundness.lua.
-- KEYS: meta, state, messages, ids.  ARGV: max_age (ms, or -1), '1' to look only at what is there.
-- Returns {'nothing', 'deleted', 'damaged', 'partial' or 'conversation', owner whose index must list it
-- (or ''), 1 if it never expires, and for each key the ms that are left (-1: for ever; -2: it is not
-- there)}.
local left = {}
for at = 1, 4 do left[at] = redis.call('PTTL', KEYS[at]) end
local function answer(kind, owner, is_lasting)
    return {kind, owner or '', is_lasting and 1 or 0, left[1], left[2], left[3], left[4]}
end
if left[1] == -2 then return answer('nothing') end
if ARGV[2] == '1' then return answer('conversation') end
if not is_sound() then return answer('damaged') end
local version, owner, ttl, due = unpack(redis.call('HMGET', KEYS[1], 'v', 'o', 't', 'x'))
if not version then return answer('deleted') end
if not is_whole_conversation() then return answer('partial') end
-- Until then the index does not have to be told again.
return answer('conversation', (tonumber(due) or 0) > clock() and owner,
    ttl == '0' and ARGV[1] == '-1')
