#!lua flags=allow-oom
-- The contexts of a session.
-- KEYS  1 session  2 contexts
-- Answers, for each of them, {name, milliseconds until it is over, how many fields it has, the bytes
-- of their names and values}.
local found = {}
if redis.call('EXISTS', KEYS[1]) == 0 then return found end
local now = clock()
for name, meta in pairs(contexts_in(KEYS[2], now)) do
  found[#found + 1] = {name, meta[1] - now, meta[3], meta[4]}
end
return found
