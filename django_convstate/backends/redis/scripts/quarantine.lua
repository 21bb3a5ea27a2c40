-- Rename the keys of a conversation that is damaged, so that it is neither served nor overwritten.
-- A client that saw the damage may come late: a conversation that is sound by now stays where it is.
-- Follows common.lua and soundness.lua.
-- KEYS: meta, state, messages, ids.  ARGV: how long the renamed keys are kept (ms), and how long where
-- the server has evicted a part of them, for then there may be many.
-- Returns 1, or 0 where the conversation is sound.
local sound = is_sound()
if sound and is_whole_conversation() then return 0 end
local kept = sound and ARGV[2] or ARGV[1]
for _, key in ipairs(KEYS) do
    local to, number = key .. ':corrupt', 1
    while redis.call('EXISTS', to) == 1 do
        number = number + 1
        to = key .. ':corrupt:' .. number
    end
    if redis.call('EXISTS', key) == 1 then
        redis.call('RENAME', key, to)
        redis.call('PEXPIRE', to, kept)
    end
end
return 1
