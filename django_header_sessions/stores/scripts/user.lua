#!lua flags=allow-oom
-- The sessions of a user.
-- KEYS  1 user index
-- ARGV  1 user  2 how many
-- Answers {entries of the user index}; those of a user whose id goes on with a NUL are among them.
return redis.call('ZRANGE', KEYS[1], '[' .. ARGV[1] .. '\0', '(' .. ARGV[1] .. '\1', 'BYLEX',
  'LIMIT', 0, ARGV[2])
