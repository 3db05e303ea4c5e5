#!lua flags=allow-oom
-- Opens a session, and slides its idle timeout once per grain.
-- KEYS  1 session  2 index of the anonymous  3 index of the signed in  4 contexts
-- ARGV  1 id  2 hash of the secret  3 transport  4 default idle timeout
-- Answers 0 (not there), 1 (superseded), or packed: id, milliseconds until it is over,
-- now, the hash.
--
-- This script counts as a write, so that a replica and a demoted primary refuse it, whose "there"
-- and "not there" may be stale; and it may run when memory is full, so that reads go on.
local m, refused = known(KEYS[1], ARGV[2], ARGV[3])
if not m then return refused end

return opened(KEYS[1], m[8] and KEYS[3] or KEYS[2], KEYS[4], ARGV[1], clock(), ARGV[4], m)
