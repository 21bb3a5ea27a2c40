-- Enqueue a lease for a turn, and load the conversation if the lease holds the turn. Follows
-- lease_queue.lua, common.lua, and load.lua as a function.
-- KEYS: meta, state, messages, ids, queue.  ARGV: window, max_age (ms, or -1), '', etag (or ''), lease,
--       ms.
-- Returns {0, what load returns}, or {how many leases are ahead}.
local now = clock()
local entries = read_queue(now)
local mine = #entries + 1
for at, entry in ipairs(entries) do
    if entry[1] == ARGV[5] then mine = at end
end
entries[mine] = {ARGV[5], now + ARGV[6]}
write_queue(entries, now)
if mine > 1 then return {mine - 1} end
return {0, load()}
