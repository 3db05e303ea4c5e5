#!lua flags=allow-oom
-- Part of the sessions of a user, in the order of their ids. Those that expired are dropped.
-- KEYS  1 user index  2, 3 the indexes of the signed in  4 counters
-- ARGV  1 user  2 how many entries to look at  3 where the part before ended, or ''
-- Answers {where this part ended, or '' where it was the last, ids and their expiries in one string:
-- 15 bytes and a 64-bit integer each}.
local user, now = ARGV[1], clock()
local entries = redis.call('ZRANGE', KEYS[1],
  ARGV[3] == '' and '[' .. user .. '\0' or '(' .. user_member(user, ARGV[3]),
  '(' .. user .. '\1', 'BYLEX', 'LIMIT', 0, ARGV[2])

local live, expired = {}, 0
for _, entry in ipairs(entries) do
  -- A user whose id goes on with a NUL is another one.
  if #entry == #user + 16 then
    local id = entry:sub(-15)
    local listed = member(id, user)
    local expires = redis.call('ZSCORE', KEYS[2], listed) or redis.call('ZSCORE', KEYS[3], listed)
    if expires and tonumber(expires) >= now then
      live[#live + 1] = struct.pack('>c15i8', id, tonumber(expires))
    else
      redis.call('ZREM', KEYS[1], entry)
      expired = expired + redis.call('ZREM', KEYS[2], listed) + redis.call('ZREM', KEYS[3], listed)
    end
  end
end
if expired > 0 then tally(KEYS[4], now, 'x', expired) end

return {#entries == tonumber(ARGV[2]) and entries[#entries]:sub(#user + 2) or '',
  table.concat(live)}
