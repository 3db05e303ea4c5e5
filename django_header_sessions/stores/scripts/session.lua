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

-- Whether a hash is one of the last four.
local function was_good(previous, hash)
  for at = 1, previous and #previous or 0, 16 do
    if previous:sub(at, at + 15) == hash then return true end
  end
  return false
end
