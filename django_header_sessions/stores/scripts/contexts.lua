#!lua flags=allow-oom
-- The contexts of a session.
-- KEYS  1 session  2 contexts
-- Answers, for each of them, {name, milliseconds until it is over, how many fields it has, the bytes
-- of their names and values}.
local found = {}
local session_gone = redis.call('PEXPIRETIME', KEYS[1])
if session_gone < 0 then return found end
local now = clock()
for name, meta in pairs(contexts_in(KEYS[2], now)) do
  found[#found + 1] = {name, math.min(meta[1], session_gone) - now, meta[3], meta[4]}
end
return found
