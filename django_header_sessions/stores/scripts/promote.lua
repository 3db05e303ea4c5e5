#!lua
-- Changes a context, makes its fields the session's, and ends it: all of that, or nothing.
-- KEYS  1 session  2 context  3 contexts  4 lock
-- ARGV  1 id  2 hash of the secret  3 transport  4 name  5 ticket that has to hold the lock, or ''
--       6 '1' to clear all fields first  7 number of fields to set  8 of fields to delete
--       9… names and values to set, names to delete
-- Answers 0 (no session), 1 (superseded), 2 (the ticket holds no lock), 3 (no context), or packed as
-- open_context.lua does.
local m = redis.call('HMGET', KEYS[1], H, T, P)
if not m[1] or m[2] ~= ARGV[3] then return 0 end
if m[1] ~= ARGV[2] then return was_good(m[3], ARGV[2]) and 1 or 0 end
if ARGV[5] ~= '' and redis.call('GET', KEYS[4]) ~= ARGV[5] then return 2 end
if redis.call('EXISTS', KEYS[2]) == 0 then return 3 end

local delete = 9 + 2 * ARGV[7]
if ARGV[6] == '1' then clear(KEYS[2]) end
change(KEYS[2], 9, delete, delete + ARGV[8])
local hash = redis.call('HGETALL', KEYS[2])
for at = 1, #hash, 2 do
  if hash[at]:byte() ~= 255 then redis.call('HSET', KEYS[1], hash[at], hash[at + 1]) end
end
redis.call('DEL', KEYS[2])
redis.call('ZREM', KEYS[3], ARGV[4])
return packed_context(ARGV[1], ARGV[4], hash)
