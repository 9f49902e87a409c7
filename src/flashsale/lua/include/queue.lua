-- What reserve and push do to the list of orders, and to the key that wakes a worker.

-- wake(key, length): leave the one element that wakes a waiting worker, unless the list had one: its length before the
-- first write, which is asked for then because a wrong type must fail there.
local function wake(key, length)
  if length == 0 then
    redis.call("LPUSH", key, "1")
  end
end

-- stamp(time): how the JSON of an order begins that brings no time of its own.
local function stamp(time)
  return string.format('{"created_at":%.6f,', time)
end

-- stamped(body, stamp): the JSON of an order with its time in front: its own, if it begins with one.
local function stamped(body, stamp)
  return string.find(body, '^{"created_at":') and body or stamp .. string.sub(body, 2)
end
