#!lua
-- Stores a new session.
-- KEYS  1 session  2 index of the anonymous  3 index of the signed in  4 user index  5 counters
-- ARGV  1 id  2 hash of the secret  3 transport  4 default idle timeout
--       5 absolute timeout, or ''  6 user, or ''  7 own idle timeout, or ''
--       8 own deadline from now, or ''  9 IP, or ''  10 user agent, or ''
--       11… names and values of fields, in turn
-- Answers the milliseconds until it is over, or -1 where the id is taken.
if redis.call('EXISTS', KEYS[1]) == 1 then return -1 end

-- Sessions that expired left their index entries behind. Each creation takes two of them along,
-- so that the index cannot outgrow the sessions where nobody ever sweeps.
local now = clock()
local expired = 0
for at = 2, 3 do
  for _, stale in ipairs(redis.call('ZRANGE', KEYS[at], '-inf', '(' .. now, 'BYSCORE', 'LIMIT', 0, 2)) do
    expired = expired + redis.call('ZREM', KEYS[at], stale)
    if at == 3 then redis.call('ZREM', KEYS[4], user_member(stale:sub(17), stale:sub(1, 15))) end
  end
end

local user = ARGV[6] ~= '' and ARGV[6]
local meta = {H, ARGV[2], T, ARGV[3], C, now, S, now}
local function put(name, value)
  if value ~= '' then
    meta[#meta + 1] = name
    meta[#meta + 1] = value
    return value
  end
end
local deadline = put(D, ARGV[5] ~= '' and now + ARGV[5] or '')
local own_idle = put(X, ARGV[7])
local own_deadline = put(E, ARGV[8] ~= '' and now + ARGV[8] or '')
put(U, ARGV[6])
put(G, user and now or '')
put(I, ARGV[9])
put(A, ARGV[10])

local over, gone = lifetime(now, ARGV[4], own_idle, own_deadline, deadline)
redis.call('HSET', KEYS[1], unpack(meta))
if #ARGV > 10 then redis.call('HSET', KEYS[1], unpack(ARGV, 11)) end
redis.call('PEXPIREAT', KEYS[1], gone)
redis.call('ZADD', user and KEYS[3] or KEYS[2], gone, member(ARGV[1], user))
if user then redis.call('ZADD', KEYS[4], 0, user_member(user, ARGV[1])) end
tally(KEYS[5], now, '+', 1)
if expired > 0 then tally(KEYS[5], now, 'x', expired) end
return over - now
