-- push: put one order on the list, without deducting; the plain LPUSH of the article, with a time and the wake-up key.
--
-- KEYS[1]  order_list  list    JSON orders
-- KEYS[2]  wakeup      list    wakes a waiting worker
-- ARGV[1]  body        string  JSON object
--
-- Returns the length of the list

-- include: clock
-- include: queue
local wakeups = redis.call("LLEN", KEYS[2])
local length = redis.call("LPUSH", KEYS[1], stamped(ARGV[1], stamp(now())))
wake(KEYS[2], wakeups)
return length
