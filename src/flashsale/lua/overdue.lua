-- overdue: orders whose payment deadline has passed by the server's clock; reads only.
--
-- KEYS[1]  holds  sorted set  order id -> payment deadline
-- ARGV[1]  limit  integer     most orders
--
-- Returns order ids, the oldest deadline first

-- include: clock
return redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", string.format("%.6f", now()), "LIMIT", 0, ARGV[1])
