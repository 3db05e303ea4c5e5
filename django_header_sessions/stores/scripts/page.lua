#!lua flags=allow-oom
-- Part of the list of live sessions, latest to expire first, or backward: first to expire first.
-- KEYS  the indexes to list
-- ARGV  1 how many of each  2 expiry and  3 id that the part before ended with, or '' and ''
--       4 '1' for backward
-- Answers, for each index, {entries and their expiries in turn}. Of sessions that expire in the same
-- millisecond those of greater ids come first; backward, those of lesser ids.
local now = clock()

local function forward(index)
  local first = 0
  if ARGV[2] ~= '' then
    -- The entries of that very millisecond, however many, are searched by halves.
    first = redis.call('ZCOUNT', index, '(' .. ARGV[2], '+inf')
    local last = redis.call('ZCOUNT', index, ARGV[2], '+inf')
    while first < last do
      local middle = math.floor((first + last) / 2)
      local entry = redis.call('ZRANGE', index, middle, middle, 'REV')[1]
      if entry:sub(1, 15) < ARGV[3] then last = middle else first = middle + 1 end
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

local function backward(index)
  local first = redis.call('ZCOUNT', index, '-inf', '(' .. now)
  if ARGV[2] ~= '' then
    local before = redis.call('ZCOUNT', index, '-inf', '(' .. ARGV[2])
    local last = redis.call('ZCOUNT', index, '-inf', ARGV[2])
    while before < last do
      local middle = math.floor((before + last) / 2)
      local entry = redis.call('ZRANGE', index, middle, middle)[1]
      if entry:sub(1, 15) > ARGV[3] then last = middle else before = middle + 1 end
    end
    first = math.max(first, before)
  end
  return redis.call('ZRANGE', index, first, first + ARGV[1] - 1, 'WITHSCORES')
end

local parts = {}
for _, index in ipairs(KEYS) do
  parts[#parts + 1] = ARGV[4] == '1' and backward(index) or forward(index)
end
return parts
