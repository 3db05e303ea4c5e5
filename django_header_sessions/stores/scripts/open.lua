#!lua flags=allow-oom
-- Opens a session, and slides its idle timeout once per grain.
-- KEYS  1 session  2 index of the anonymous  3 index of the signed in  4 contexts
-- ARGV  1 id  2 hash of the secret  3 transport  4 default idle timeout
-- Answers 0 (not there), 1 (superseded), or packed: id, milliseconds until it is over,
-- now, the hash.
--
-- This script counts as a write, so that a replica and a demoted primary refuse it, whose "there"
-- and "not there" may be stale; and it may run when memory is full, so that reads go on.
local m = redis.call('HMGET', KEYS[1], H, T, P, S, X, E, D, U)
if not m[1] or m[2] ~= ARGV[3] then return 0 end
if m[1] ~= ARGV[2] then return was_good(m[3], ARGV[2]) and 1 or 0 end

return opened(KEYS[1], m[8] and KEYS[3] or KEYS[2], KEYS[4], ARGV[1], clock(), ARGV[4], m[5], m[6],
  m[7], m[4], m[8])
