-- Read a page of an owner's index, and change nothing.
-- KEYS: index.  ARGV: where the page begins, how many ids about.
-- Returns {now (ms), ms left of the index (-1: for ever), where the next page begins, ids and scores}.
local time, page = redis.call('TIME'), redis.call('ZSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
return {time[1] * 1000 + math.floor(time[2] / 1000), redis.call('PTTL', KEYS[1]), page[1], page[2]}
