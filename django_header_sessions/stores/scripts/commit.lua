#!lua
-- Changes a session and contexts of it: all of what is asked, or nothing.
-- KEYS  1 session  2 index of the anonymous  3 index of the signed in  4 user index
--       5 contexts, where some change, the lifetime does, or there is a ticket
--       6 lock  7 queue  8 who waits, where there is a ticket
-- ARGV  1 id  2 hash of the secret  3 transport  4 default idle timeout
--       5 absolute timeout, or ''  6 hash of a new secret, or ''
--       7 '=' (same user) or '+' and the user ('' for none)
--       8 '=' (same lifetime), 'default', 'idle' or 'deadline'  9 its milliseconds
--       10 '1' to clear all fields first  11 number of fields to set  12 of fields to delete
--       13 ticket that has to hold the lock, or ''
--       14 what the channels of wake-ups begin with, to unlock afterwards, or ''
--       15 number of contexts to change  16 how many there may be
--       17… names and values to set, names to delete; of each context its name, the idle timeout of
--       one that is made here ('': it has to be there), '1' to promote it, how many fields to set and
--       to delete, names and values, names; then a counter and its increment, if any
-- Answers 0 (not there), 1 (superseded), 2 (the ticket holds no lock), 3 (no such context), 4 (too
-- many), 'integer' or 'overflow' (of the counter), or {milliseconds until it is over (-1: as before),
-- the counter's total (or ''), whom to wake (or ''), what was promoted, as a MessagePack array (or
-- '')}.
local m, refused = known(KEYS[1], ARGV[2], ARGV[3])
if not m then return refused end

if ARGV[13] ~= '' and redis.call('GET', KEYS[6]) ~= ARGV[13] then return 2 end

local set, delete = 17, 17 + 2 * ARGV[11]
local add = delete + ARGV[12]
local rest = add

local now, metas, changes = nil, nil, {}
if ARGV[15] ~= '0' then
  now = clock()
  metas = contexts_in(KEYS[5], now)
  local most = tonumber(ARGV[16])
  for _ in pairs(metas) do most = most - 1 end
  for _ = 1, ARGV[15] do
    if not metas[ARGV[add]] then
      if ARGV[add + 1] == '' then return 3 end
      if ARGV[add + 2] == '' then
        most = most - 1
        if most < 0 then return 4 end
      end
    end
    changes[#changes + 1] = add
    add = add + 5 + 2 * ARGV[add + 3] + ARGV[add + 4]
  end
end

if ARGV[10] == '1' then
  for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
    if name:byte() ~= 255 then redis.call('HDEL', KEYS[1], name) end
  end
end

-- Before the others, because it is the one write that can refuse, unless the counter was cleared
-- just now: nothing is rolled back here.
local total = ''
if ARGV[add] then
  local answer = redis.pcall('HINCRBY', KEYS[1], ARGV[add], ARGV[add + 1])
  if type(answer) == 'table' then
    if answer.err:find('not an integer', 1, true) then return 'integer' end
    if answer.err:find('overflow', 1, true) then return 'overflow' end
    return answer
  end
  -- As text: a Lua number is a double, which keeps 53 of the 64 bits.
  total = redis.call('HGET', KEYS[1], ARGV[add])
end

-- In parts: concurrent commits may have made more fields than unpack can put out at once.
for at = set, delete - 1, 1000 do
  redis.call('HSET', KEYS[1], unpack(ARGV, at, math.min(at + 999, delete - 1)))
end
for at = delete, rest - 1, 1000 do
  redis.call('HDEL', KEYS[1], unpack(ARGV, at, math.min(at + 999, rest - 1)))
end

if ARGV[6] ~= '' then
  redis.call('HSET', KEYS[1], H, ARGV[6], P, (m[1] .. (m[3] or '')):sub(1, 64))
end

local left = -1
if ARGV[7] ~= '=' or ARGV[8] ~= '=' then
  -- Who is signed in, or how long the session lives, changes: it moves in the indexes.
  now = now or clock()
  local old, user, deadline = m[8], m[8], m[7]
  if ARGV[7] ~= '=' then
    user = #ARGV[7] > 1 and ARGV[7]:sub(2)
    redis.call('ZREM', old and KEYS[3] or KEYS[2], member(ARGV[1], old))
    if old then redis.call('ZREM', KEYS[4], user_member(old, ARGV[1])) end
    if user then
      redis.call('HSET', KEYS[1], U, user, G, now)
      redis.call('ZADD', KEYS[4], 0, user_member(user, ARGV[1]))
      deadline = ARGV[5] ~= '' and now + ARGV[5] or false
      if deadline then
        redis.call('HSET', KEYS[1], D, deadline)
      else
        redis.call('HDEL', KEYS[1], D)
      end
    else
      redis.call('HDEL', KEYS[1], U, G)
    end
  end

  local own_idle, own_deadline = m[5], m[6]
  if ARGV[8] ~= '=' then
    own_idle = ARGV[8] == 'idle' and ARGV[9]
    own_deadline = ARGV[8] == 'deadline' and now + ARGV[9]
    redis.call('HDEL', KEYS[1], X, E)
    if own_idle then redis.call('HSET', KEYS[1], X, own_idle) end
    if own_deadline then redis.call('HSET', KEYS[1], E, own_deadline) end
  end

  local over, gone = lifetime(now, ARGV[4], own_idle, own_deadline, deadline)
  redis.call('HSET', KEYS[1], S, now)
  redis.call('PEXPIREAT', KEYS[1], gone)
  redis.call('ZADD', user and KEYS[3] or KEYS[2], gone, member(ARGV[1], user))
  metas = metas or contexts_in(KEYS[5], now)
  left = over - now
end

local promoted = ''
if metas then
  for _, at in ipairs(changes) do
    local name, idle = ARGV[at], tonumber(ARGV[at + 1])
    local order, values = {}, {}
    local function keep(field, value)
      if not values[field] then order[#order + 1] = field end
      values[field] = value
    end
    if metas[name] then
      idle = metas[name][2]
      local stored = cmsgpack.unpack(redis.call('HGET', KEYS[5], 'd' .. name))
      for i = 1, #stored, 2 do keep(stored[i], stored[i + 1]) end
    end
    local names = at + 5 + 2 * ARGV[at + 3]
    for i = at + 5, names - 1, 2 do keep(ARGV[i], ARGV[i + 1]) end
    for i = names, names + ARGV[at + 4] - 1 do values[ARGV[i]] = nil end
    local fields = {}
    for _, field in ipairs(order) do
      if values[field] then
        fields[#fields + 1], fields[#fields + 2] = field, values[field]
      end
    end
    if ARGV[at + 2] == '' then
      put_context(KEYS[5], metas, name, fields, idle, now)
    else
      for i = 1, #fields, 2 do redis.call('HSET', KEYS[1], fields[i], fields[i + 1]) end
      redis.call('HDEL', KEYS[5], 'd' .. name, 'm' .. name)
      metas[name] = nil
      promoted = cmsgpack.pack(fields)
    end
  end
  time_contexts(KEYS[5], metas, redis.call('PEXPIRETIME', KEYS[1]))
end

local next_one = ''
if ARGV[14] ~= '' then next_one = unlock(KEYS[6], KEYS[7], KEYS[8], ARGV[13], ARGV[14]) end
return {left, total, next_one, promoted}
