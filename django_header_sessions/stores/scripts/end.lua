#!lua flags=allow-oom
-- Ends a session, whatever its secret is by now.
-- KEYS  1 session  2–5 the four indexes  6 user index  7 counters  8 contexts
-- ARGV  1 id  2 what the keys of its contexts begin with
-- Answers 1, or 0 where there was none.
local user = redis.call('HGET', KEYS[1], U)
local there = redis.call('DEL', KEYS[1])
for _, name in ipairs(redis.call('ZRANGE', KEYS[8], 0, -1)) do redis.call('DEL', ARGV[2] .. name) end
redis.call('DEL', KEYS[8])
local listed = 0
for at = 2, 5 do listed = listed + redis.call('ZREM', KEYS[at], member(ARGV[1], user)) end
if user then redis.call('ZREM', KEYS[6], user_member(user, ARGV[1])) end
if listed > 0 then tally(KEYS[7], clock(), there == 1 and '-' or 'x', 1) end
return there
