#!lua flags=allow-oom
-- The contexts of a session.
-- KEYS  1 session  2 contexts
-- ARGV  1 what the keys of the contexts begin with
-- Answers, for each of them, {name, milliseconds until it is over, how many fields it has, the bytes
-- of their names and values}.
if redis.call('EXISTS', KEYS[1]) == 0 then return {} end

local now = clock()
local found = {}
for _, name in ipairs(redis.call('ZRANGE', KEYS[2], '(' .. now, '+inf', 'BYSCORE')) do
  local context = ARGV[1] .. name
  local left = redis.call('PTTL', context)
  if left > 0 then
    local count, bytes = measured(context)
    found[#found + 1] = {name, left, count, bytes}
  end
end
return found
