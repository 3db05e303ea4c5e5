#!lua flags=allow-oom
-- Drops index entries of sessions that expired.
-- KEYS  1–4 the four indexes  5 user index  6 counters
-- ARGV  1 how many at the most
-- Answers how many were dropped.
local now = clock()
-- In the millisecond of its score a session is still there.
local before = '(' .. now
local dropped = 0
for at = 1, 4 do
  local stale = redis.call('ZRANGE', KEYS[at], '-inf', before, 'BYSCORE', 'LIMIT', 0,
    ARGV[1] - dropped)
  for _, entry in ipairs(stale) do
    redis.call('ZREM', KEYS[at], entry)
    if #entry > 15 then
      redis.call('ZREM', KEYS[5], user_member(entry:sub(17), entry:sub(1, 15)))
    end
  end
  dropped = dropped + #stale
end
if dropped > 0 then tally(KEYS[6], now, 'x', dropped) end
return dropped
