-- overdue: orders whose payment deadline has passed by the server's clock, and what the ledger knows of them; reads only.
--
-- KEYS[1]  holds   sorted set  order id -> payment deadline
-- KEYS[2]  orders  hash        the ledger
-- ARGV[1]  limit   integer     most orders
--
-- Returns {order ids, the oldest deadline first; the record of each, or nil}

-- include: clock
local ids = redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", string.format("%.6f", now()), "LIMIT", 0, ARGV[1])
return { ids, #ids > 0 and redis.call("HMGET", KEYS[2], unpack(ids)) or {} }
