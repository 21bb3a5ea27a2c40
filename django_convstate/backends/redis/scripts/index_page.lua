-- Read a page of an owner's index, newest saved first: the rest of one block, and the next block, whose
-- bounds are chosen so that conversations that were saved within INDEX_LAG are in one block.
-- Follows index_forms.lua.
-- ARGV: '1' to look for what only one of the sets has; the bounds of the block of which the rest is
--       asked for (ms; the upper one is not included); how many conversations a block has at most,
--       but for those of one ms; how many the next block has at least; within how many ms there may be
--       more; and how many more.
-- Returns {ids that only a former version has indexed} if there are any, or else {ids of the rest, its
-- lower bound, ids of the next block, its lower bound}, which is 0 if nothing is below it.
if ARGV[1] == '1' then
    local strays = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. OFFSET)
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '+inf', '+inf')) do
        strays[#strays + 1] = id
    end
    if redis.call('ZCARD', KEYS[2]) < redis.call('ZCARD', KEYS[1]) then  -- evicted, perhaps
        for _, id in ipairs(redis.call('ZDIFF', 2, KEYS[1], KEYS[2])) do strays[#strays + 1] = id end
    end
    if #strays > 0 then return {strays} end
end
local high, from = '(' .. ARGV[2], ARGV[3]
local more = redis.call('ZREVRANGEBYSCORE', KEYS[2], high, from, 'WITHSCORES', 'LIMIT', ARGV[4], 1)
if #more > 0 then from = string.format('%.0f', math.floor(more[2])) end
local rest = redis.call('ZREVRANGEBYSCORE', KEYS[2], high, from)
local below, count, most = '(' .. from, tonumber(ARGV[5]), ARGV[5] + ARGV[7]
local block = redis.call('ZREVRANGEBYSCORE', KEYS[2], below, '-inf', 'WITHSCORES', 'LIMIT', 0, count)
if #block < 2 * count then
    local ids = {}
    for at = 1, #block, 2 do ids[#ids + 1] = block[at] end
    return {rest, tonumber(from), ids, 0}
end
local last = tonumber(block[#block])
local low = math.max(0, math.floor(last - ARGV[6]))
if redis.call('ZCOUNT', KEYS[2], low, below) > most then low = math.max(0, math.floor(last)) end
return {rest, tonumber(from), redis.call('ZREVRANGEBYSCORE', KEYS[2], below, low), low}
