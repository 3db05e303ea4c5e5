#!lua
-- Changes a context: all of what is asked, or nothing.
-- KEYS  1 session  2 context  3 contexts  4 lock
-- ARGV  1 id  2 hash of the secret  3 transport  4 name  5 ticket that has to hold the lock, or ''
--       6 idle timeout of one that is made here, or '' to make none  7 how many there may be
--       8 '1' to clear all fields first  9 number of fields to set  10 of fields to delete
--       11… names and values to set, names to delete
-- Answers 0 (no session), 1 (superseded), 2 (the ticket holds no lock), 3 (no context), 4 (too many)
-- or 5 (done).
local m = redis.call('HMGET', KEYS[1], H, T, P)
if not m[1] or m[2] ~= ARGV[3] then return 0 end
if m[1] ~= ARGV[2] then return was_good(m[3], ARGV[2]) and 1 or 0 end
if ARGV[5] ~= '' and redis.call('GET', KEYS[4]) ~= ARGV[5] then return 2 end

local idle = redis.call('HGET', KEYS[2], X)
if not idle then
  if ARGV[6] == '' then return 3 end
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', '(' .. clock())
  if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[7]) then return 4 end
  idle = ARGV[6]
  redis.call('HSET', KEYS[2], X, idle)
end

local delete = 11 + 2 * ARGV[9]
if ARGV[8] == '1' then clear(KEYS[2]) end
change(KEYS[2], 11, delete, delete + ARGV[10])
slide_context(KEYS[1], KEYS[2], KEYS[3], ARGV[4], idle)
return 5
