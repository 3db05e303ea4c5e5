#!lua flags=allow-oom
-- Ends one context.
-- KEYS  1 contexts
-- ARGV  1 name
-- Answers 1, or 0 where there was none.
local there = contexts_in(KEYS[1], clock())[ARGV[1]]
redis.call('HDEL', KEYS[1], 'd' .. ARGV[1], 'm' .. ARGV[1])
return there and 1 or 0
