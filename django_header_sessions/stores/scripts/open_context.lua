#!lua flags=allow-oom
-- Opens a context, and slides its idle timeout.
-- KEYS  1 session  2 contexts
-- ARGV  1 id  2 hash of the secret  3 transport  4 name
-- Answers 0 (no session), 1 (superseded), 3 (no context), or {id and name, the context's fields as a
-- MessagePack array}.
local m, refused = known(KEYS[1], ARGV[2], ARGV[3])
if not m then return refused end

local now = clock()
local metas = contexts_in(KEYS[2], now)
local meta = metas[ARGV[4]]
if not meta then return 3 end
meta[1] = now + meta[2]
redis.call('HSET', KEYS[2], 'm' .. ARGV[4], string.format('%d %d %d %d', unpack(meta)))
time_contexts(KEYS[2], metas, redis.call('PEXPIRETIME', KEYS[1]))
return {ARGV[1] .. ARGV[4], redis.call('HGET', KEYS[2], 'd' .. ARGV[4])}
