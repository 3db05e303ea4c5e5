-- What the scripts share; it is put in front of each of them.
--
-- The meta values of a session, in the hash beside its fields. Their names begin with byte 0xFF,
-- which no text does:
--   h hash of the secret           p hashes of the last four secrets, newest first
--   c created                      s last seen                     d absolute deadline
--   x idle timeout of its own      e deadline of its own           t transport
--   u user id                      i IP                            a user agent
-- Moments are milliseconds since 1970 by this server's clock, durations are milliseconds.
local H, P, C, S, D = '\255h', '\255p', '\255c', '\255s', '\255d'
local X, E, T, U, I, A = '\255x', '\255e', '\255t', '\255u', '\255i', '\255a'

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

-- Whether a hash is one of the last four.
local function was_good(previous, hash)
  for at = 1, previous and #previous or 0, 16 do
    if previous:sub(at, at + 15) == hash then return true end
  end
  return false
end
