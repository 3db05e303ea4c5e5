#!lua flags=allow-oom
-- Gives back a lock, or the place of one who waits for it.
-- KEYS  1 lock  2 queue  3 who waits
-- ARGV  1 ticket  2 what the channels of wake-ups begin with
-- Answers whom to wake, or ''.
return unlock(KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2])
