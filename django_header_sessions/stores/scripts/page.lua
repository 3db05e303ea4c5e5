#!lua flags=allow-oom
-- Part of the list of live sessions, latest to expire first, or backward: first to expire first.
-- KEYS  the indexes to list
-- ARGV  1 how many of each  2 '1' for backward
--       3… for each index, expiry and id that the part before ended with, or '' and ''
-- Answers, for each index, {entries and their expiries in turn}. Of sessions that expire in the same
-- millisecond those of greater ids come first; backward, those of lesser ids.
local now = clock()

local function forward(index, expires, id)
  local first = 0
  if expires ~= '' then
    -- The entries of that very millisecond, however many, are searched by halves.
    first = redis.call('ZCOUNT', index, '(' .. expires, '+inf')
    local last = redis.call('ZCOUNT', index, expires, '+inf')
    while first < last do
      local middle = math.floor((first + last) / 2)
      local entry = redis.call('ZRANGE', index, middle, middle, 'REV')[1]
      if entry:sub(1, 15) < id then last = middle else first = middle + 1 end
    end
  end
  local found = redis.call('ZRANGE', index, first, first + ARGV[1] - 1, 'REV', 'WITHSCORES')
  local live = {}
  for at = 1, #found, 2 do
    if tonumber(found[at + 1]) < now then break end
    live[at], live[at + 1] = found[at], found[at + 1]
  end
  return live
end

local function backward(index, expires, id)
  local first = redis.call('ZCOUNT', index, '-inf', '(' .. now)
  if expires ~= '' then
    local before = redis.call('ZCOUNT', index, '-inf', '(' .. expires)
    local last = redis.call('ZCOUNT', index, '-inf', expires)
    while before < last do
      local middle = math.floor((before + last) / 2)
      local entry = redis.call('ZRANGE', index, middle, middle)[1]
      if entry:sub(1, 15) > id then last = middle else before = middle + 1 end
    end
    first = math.max(first, before)
  end
  return redis.call('ZRANGE', index, first, first + ARGV[1] - 1, 'WITHSCORES')
end

local parts = {}
local list = ARGV[2] == '1' and backward or forward
for at, index in ipairs(KEYS) do
  parts[at] = list(index, ARGV[2 * at + 1], ARGV[2 * at + 2])
end
return parts
