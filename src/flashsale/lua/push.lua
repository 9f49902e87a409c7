-- push: put one order on the list, without deducting; the plain LPUSH of the article, with a time and the bell.
--
-- KEYS[1]  order_list  list    JSON orders
-- KEYS[2]  bell        list    wakes a waiting worker
-- ARGV[1]  body        string  JSON object
--
-- Returns the length of the list

-- include: clock
local body, rung = ARGV[1], redis.call("LLEN", KEYS[2])
if not string.find(body, '^{"created_at":') then
  body = '{"created_at":' .. string.format("%.6f", now()) .. "," .. string.sub(body, 2)
end
local length = redis.call("LPUSH", KEYS[1], body)
if rung == 0 then
  redis.call("LPUSH", KEYS[2], "1")
end
return length
