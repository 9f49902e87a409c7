-- gates: the counters of many gates at one moment; reads only.
--
-- KEYS[1..]  groups  per item: count, start, access
--
-- Returns {count, start, access} of each item, one after the other; empty: there is none

local answer = {}
for key = 1, #KEYS, 3 do
  local values = redis.call("MGET", KEYS[key], KEYS[key + 1], KEYS[key + 2])
  for place = 1, 3 do
    answer[#answer + 1] = values[place] or ""
  end
end
return answer
