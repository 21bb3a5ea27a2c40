-- Write as a commit does, and leave nothing.
-- KEYS: a random one, which no other client uses.
redis.call('HSET', KEYS[1], 'v', 1)
redis.call('DEL', KEYS[1])
return 1
