-- An owner's index is two sorted sets of ids: until when each conversation may live, unless it is
-- added again; and when it was last saved, at most INDEX_LAG before it really was. Begins the scripts
-- that use them. KEYS: index, saved.
-- In the first, whose scores were plain times (ms) in former versions, an offset says that the second
-- has the conversation, too. Processes of a former version do not touch the second, and take no
-- conversation with the offset for expired.
local OFFSET, NEVER = 1e14, 2e14

local function remove(ids)
    for from = 1, #ids, 4000 do  -- unpack gives up near 8000 values
        local some = {unpack(ids, from, math.min(from + 3999, #ids))}
        for _, key in ipairs(KEYS) do redis.call('ZREM', key, unpack(some)) end
    end
end
