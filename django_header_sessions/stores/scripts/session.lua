-- What the scripts share; it is put in front of each of them.
--
-- The meta values of a session, in the hash beside its fields. Their names begin with byte 0xFF,
-- which no text does:
--   h hash of the secret           p hashes of the last four secrets, newest first
--   c created                      s last seen                     d absolute deadline
--   x idle timeout of its own      e deadline of its own           t transport
--   u user id                      g signed in                     i IP
--   a user agent
-- Moments are milliseconds since 1970 by this server's clock, durations are milliseconds.
local H, P, C, S, D = '\255h', '\255p', '\255c', '\255s', '\255d'
local X, E, T, U, G, I, A = '\255x', '\255e', '\255t', '\255u', '\255g', '\255i', '\255a'

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The least time between two writes of "last seen".
local function grain(idle)
  return math.min(60000, math.floor(idle / 32))
end

-- When the session is over if it is not used again: what its client is told, and the moment its
-- key expires, which is up to a grain later since not every use is written.
local function lifetime(now, idle, own_idle, own_deadline, deadline)
  idle = tonumber(own_idle or idle)
  local over = own_deadline and tonumber(own_deadline) or now + idle
  local gone = own_deadline and over or over + grain(idle)
  deadline = deadline and tonumber(deadline) or gone
  return math.min(over, deadline), math.min(gone, deadline)
end

-- An index entry: the id, and where the session is signed in the user, so that an entry whose
-- session expired still tells which entry of the user index goes with it.
local function member(id, user)
  return user and id .. '\0' .. user or id
end

local function user_member(user, id)
  return user .. '\0' .. id
end

-- A session in an answer: its id, when it is over and the time now, as 64-bit integers, then names
-- and values in turn as a MessagePack array. One string: a client in plain Python takes as long to
-- read thirty as for all the rest of the round trip.
local function packed(id, expires_in, now, hash)
  return id .. struct.pack('>i8i8', expires_in, now) .. cmsgpack.pack(hash)
end

-- Counts what happened to sessions in this minute: '+' were created, '-' were ended, 'x' expired
-- and were found to. The fields of the minutes before the last hour go when a new minute begins.
local function tally(counters, now, what, by)
  local minute = math.floor(now / 60000)
  if redis.call('HINCRBY', counters, minute .. what, by) == by then
    for _, name in ipairs(redis.call('HKEYS', counters)) do
      if tonumber(name:sub(1, -2)) < minute - 60 then redis.call('HDEL', counters, name) end
    end
    redis.call('PEXPIREAT', counters, (minute + 61) * 60000)
  end
end

-- Whose turn it is of those who wait for a lock: the first to have come that asks again still.
local function next_turn(queue, waiters, now)
  while true do
    local first = redis.call('ZRANGE', queue, 0, 0)[1]
    if not first then return nil end
    local until_ms = redis.call('ZSCORE', waiters, first)
    if until_ms and tonumber(until_ms) >= now then return first end
    redis.call('ZREM', queue, first)
    redis.call('ZREM', waiters, first)
  end
end

-- Gives a lock back and wakes who is next, by the name of its process, which its ticket begins
-- with; if that is the process that asks, its answer has the ticket: it need not be told twice. That
-- nobody may PUBLISH here is no reason not to unlock.
local function unlock(lock, queue, waiters, ticket, channels)
  if redis.call('GET', lock) == ticket then redis.call('DEL', lock) end
  redis.call('ZREM', queue, ticket)
  redis.call('ZREM', waiters, ticket)
  if redis.call('EXISTS', lock) == 1 then return '' end
  local first = next_turn(queue, waiters, clock())
  if not first then return '' end
  local process = first:match('^[^.]*')
  if process == ticket:match('^[^.]*') then return first end
  redis.pcall('PUBLISH', channels .. process, first)
  return ''
end

-- How many fields a hash has, and the bytes of their names and values.
local function measured(key)
  local count, bytes = 0, 0
  for _, name in ipairs(redis.call('HKEYS', key)) do
    if name:byte() ~= 255 then
      count = count + 1
      bytes = bytes + #name + redis.call('HSTRLEN', key, name)
    end
  end
  return count, bytes
end

-- The contexts of a session are one hash: of each the fields, names and values in turn, as a
-- MessagePack array under 'd' and its name; and under 'm' and its name when it is over, its idle
-- timeout, how many fields it has and the bytes of their names and values.

-- What 'm' holds of each context that is live. Those that are over are dropped.
local function contexts_in(key, now)
  local metas, names = {}, {}
  for _, field in ipairs(redis.call('HKEYS', key)) do
    if field:sub(1, 1) == 'm' then names[#names + 1] = field:sub(2) end
  end
  for _, name in ipairs(names) do
    local gone, idle, count, bytes = redis.call('HGET', key, 'm' .. name):match(
      '^(%d+) (%d+) (%d+) (%d+)$')
    if tonumber(gone) > now then
      metas[name] = {tonumber(gone), tonumber(idle), tonumber(count), tonumber(bytes)}
    else
      redis.call('HDEL', key, 'm' .. name, 'd' .. name)
    end
  end
  return metas
end

-- Has the contexts go from the store when the last of them is over, or their session before.
local function time_contexts(key, metas, session_gone)
  local last = 0
  for _, meta in pairs(metas) do last = math.max(last, meta[1]) end
  if last > 0 then redis.call('PEXPIREAT', key, math.min(last, session_gone)) end
end

-- Stores what a context has; its idle timeout begins anew.
local function put_context(key, metas, name, fields, idle, now)
  local count, bytes = #fields / 2, 0
  for _, text in ipairs(fields) do bytes = bytes + #text end
  local gone = now + idle
  redis.call('HSET', key, 'd' .. name, cmsgpack.pack(fields), 'm' .. name,
    string.format('%d %d %d %d', gone, idle, count, bytes))
  metas[name] = {gone, idle, count, bytes}
end

-- The meta values of a session that this hash opens: h, t, p, s, x, e, d and u. Or nil, and the
-- answer: 0 (not there), 1 (superseded: the hash is one of the last four).
local function known(session, hash, transport)
  local m = redis.call('HMGET', session, H, T, P, S, X, E, D, U)
  if not m[1] or m[2] ~= transport then return nil, 0 end
  if m[1] == hash then return m end
  for at = 1, m[3] and #m[3] or 0, 16 do
    if m[3]:sub(at, at + 15) == hash then return nil, 1 end
  end
  return nil, 0
end

-- What a request gets that opens the session of these meta values. Slides the idle timeout once per
-- grain: key, index, last seen and contexts together.
local function opened(session, index, contexts, id, now, idle, m)
  local over, gone = lifetime(now, idle, m[5], m[6], m[7])
  if now - m[4] >= grain(tonumber(m[5] or idle)) then
    redis.call('HSET', session, S, now)
    redis.call('PEXPIREAT', session, gone)
    redis.call('ZADD', index, gone, member(id, m[8]))
    time_contexts(contexts, contexts_in(contexts, now), gone)
  end
  return packed(id, over - now, now, redis.call('HGETALL', session))
end
