#!lua flags=allow-oom
-- Ends one context.
-- KEYS  1 context  2 contexts
-- ARGV  1 name
-- Answers 1, or 0 where there was none.
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('DEL', KEYS[1])
