-- ack: drop elements whose orders are committed, and mark the orders PERSISTED.
--
-- A commit is a fact, so no lease is asked for.
--
-- KEYS[1]   leases    sorted set  delivery -> lease end
-- KEYS[2]   claimed   hash        delivery -> attempts|lease|body
-- KEYS[3]   orders    hash        the ledger
-- KEYS[4]   holds     sorted set  order id -> payment deadline
-- KEYS[5..]           hashes      stock of each item: hold
-- ARGV[1]   count     integer     elements, at least 1
-- ARGV[2..]           strings     per item: how many of its orders; then per element: delivery; then order ids by item
--
-- Returns {how many elements were dropped, Redis TIME in seconds}

-- include: clock
-- include: persisted
local first = 2 + #KEYS - 4 -- of the deliveries
local ids = first + tonumber(ARGV[1])
redis.call("ZCARD", KEYS[1])
redis.call("HLEN", KEYS[2])
local dropped = 0
local time = persist(KEYS[3], KEYS[4], 5, 2, ids, function()
  redis.call("ZREM", KEYS[1], unpack(ARGV, first, ids - 1))
  dropped = redis.call("HDEL", KEYS[2], unpack(ARGV, first, ids - 1))
end)
return { dropped, time }
