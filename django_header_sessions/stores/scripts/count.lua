#!lua flags=allow-oom
-- How many live sessions there are.
-- KEYS  the four indexes
-- Answers {how many, for each index}.
local now = clock()
local counts = {}
for _, index in ipairs(KEYS) do
  counts[#counts + 1] = redis.call('ZCOUNT', index, now, '+inf')
end
return counts
