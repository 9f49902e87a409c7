-- minutes: what was counted in many minutes; reads only.
--
-- KEYS[1..]  hashes  counts of each minute
--
-- Returns {names and numbers, one after the other} of each minute

local answer = {}
for key = 1, #KEYS do
  answer[key] = redis.call("HGETALL", KEYS[key])
end
return answer
