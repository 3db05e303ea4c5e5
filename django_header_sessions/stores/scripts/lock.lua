#!lua flags=allow-oom
-- Takes the lock of a session, in the order of arrival, and opens the session: when memory is full,
-- too, so that reads go on.
-- KEYS  1 session  2 index of the anonymous  3 index of the signed in  4 lock  5 queue
--       6 who waits  7 contexts
-- ARGV  1 id  2 hash of the secret  3 transport  4 default idle timeout  5 ticket
--       6 milliseconds of the lease  7 of a wait, after which who did not ask again is passed over
-- Answers 0, 1 or a session as open.lua does; or {milliseconds until the lease of another ends} to
-- who is next, {-1} to those behind.
local m, refused = known(KEYS[1], ARGV[2], ARGV[3])
if not m then return refused end

local now = clock()
local holder = redis.call('GET', KEYS[4])
local first = next_turn(KEYS[5], KEYS[6], now)
if holder ~= ARGV[5] and (holder or first and first ~= ARGV[5]) then
  -- The order is that of this server's clock, to the microsecond: the first time somebody asks.
  local time = redis.call('TIME')
  redis.call('ZADD', KEYS[5], 'NX', time[1] * 1000000 + time[2], ARGV[5])
  redis.call('ZADD', KEYS[6], now + ARGV[7], ARGV[5])
  redis.call('PEXPIRE', KEYS[5], ARGV[7])
  redis.call('PEXPIRE', KEYS[6], ARGV[7])
  return {(not first or first == ARGV[5]) and redis.call('PTTL', KEYS[4]) or -1}
end
if not holder then
  redis.call('SET', KEYS[4], ARGV[5], 'PX', ARGV[6])
  redis.call('ZREM', KEYS[5], ARGV[5])
  redis.call('ZREM', KEYS[6], ARGV[5])
end
return opened(KEYS[1], m[8] and KEYS[3] or KEYS[2], KEYS[7], ARGV[1], now, ARGV[4], m)
