-- Add messages to a conversation that is being restored, under keys that no client reads yet.
-- KEYS: messages, ids.  ARGV: how long they are kept (ms), how many ids follow, each with the key that
-- it was given, and then messages.
local ids = 2 * ARGV[2]
if ids > 0 then
    redis.call('HSET', KEYS[2], unpack(ARGV, 3, 2 + ids))
    redis.call('PEXPIRE', KEYS[2], ARGV[1])
end
if #ARGV > 2 + ids then
    redis.call('RPUSH', KEYS[1], unpack(ARGV, 3 + ids))
    redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return 1
