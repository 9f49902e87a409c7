-- records: read what the ledger knows of orders, in a sale that this release can read.
--
-- KEYS[1]  meta    hash     layout
-- KEYS[2]  orders  hash     the ledger
-- ARGV[1..]        strings  order ids
--
-- Returns the record of each order, or nil

-- include: number
-- include: layout
return redis.call("HMGET", KEYS[2], unpack(ARGV))
