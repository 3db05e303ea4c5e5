#!lua flags=allow-oom
-- Looks at a session without using it. Where it is gone, drops the index entries that led here.
-- KEYS  1 session  2–5 the four indexes  6 user index  7 counters
-- ARGV  1 id  2 default idle timeout  3 the user the index named, or ''
--       4 'fields' for all of the hash, 'meta' for the meta values and how much the fields are
--       (n of them, z bytes), or 'secret' for its hash
-- Answers 0 (not there), the hash of the secret, or packed: id, milliseconds until it is
-- over, now, what was asked for.
if redis.call('EXISTS', KEYS[1]) == 0 then
  local user = ARGV[3] ~= '' and ARGV[3]
  local listed = 0
  for at = 2, 5 do listed = listed + redis.call('ZREM', KEYS[at], member(ARGV[1], user)) end
  if listed > 0 then tally(KEYS[7], clock(), 'x', 1) end
  if user then redis.call('ZREM', KEYS[6], user_member(user, ARGV[1])) end
  return 0
end

if ARGV[4] == 'secret' then return redis.call('HGET', KEYS[1], H) end

local names = {H, T, C, S, D, X, E, U, G, I, A}
local m = redis.call('HMGET', KEYS[1], unpack(names))
local hash = {}
if ARGV[4] == 'fields' then
  hash = redis.call('HGETALL', KEYS[1])
else
  for at = 2, #names do
    if m[at] then
      hash[#hash + 1] = names[at]
      hash[#hash + 1] = m[at]
    end
  end
  local count, bytes = measured(KEYS[1])
  hash[#hash + 1], hash[#hash + 2] = '\255n', tostring(count)
  hash[#hash + 1], hash[#hash + 2] = '\255z', string.format('%d', bytes)
end
local now = clock()
-- From when it was last seen, not from now: to be looked at is not to be used.
local over = lifetime(tonumber(m[4]), ARGV[2], m[6], m[7], m[5])
return packed(ARGV[1], math.max(over - now, 0), now, hash)
