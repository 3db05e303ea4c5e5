#!lua flags=allow-oom
-- Opens a context, and slides its idle timeout.
-- KEYS  1 session  2 context  3 contexts
-- ARGV  1 id  2 hash of the secret  3 transport  4 name
-- Answers 0 (no session), 1 (superseded), 3 (no context), or packed: id, two numbers of no meaning,
-- the hash, and its name.
local m = redis.call('HMGET', KEYS[1], H, T, P)
if not m[1] or m[2] ~= ARGV[3] then return 0 end
if m[1] ~= ARGV[2] then return was_good(m[3], ARGV[2]) and 1 or 0 end

local idle = redis.call('HGET', KEYS[2], X)
if not idle then return 3 end
slide_context(KEYS[1], KEYS[2], KEYS[3], ARGV[4], idle)
return packed_context(ARGV[1], ARGV[4], redis.call('HGETALL', KEYS[2]))
