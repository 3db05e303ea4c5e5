#!lua flags=allow-oom
-- What happened to sessions in the last hour.
-- KEYS  1 counters
-- Answers {the minute it is now, counted since 1970, fields and values in turn}; a field is the
-- minute and what is counted, as `tally` in session.lua says.
return {math.floor(clock() / 60000), redis.call('HGETALL', KEYS[1])}
