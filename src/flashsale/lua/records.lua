-- records: read what the ledger knows of orders, in a sale that this release can read.
--
-- KEYS[1]  meta    hash     layout
-- KEYS[2]  orders  hash     the ledger
-- ARGV[1..]        strings  order ids
--
-- Returns {Redis TIME in seconds, the record of each order, or nil}

-- include: number
-- include: layout
-- include: clock
return { string.format("%.6f", now()), redis.call("HMGET", KEYS[2], unpack(ARGV)) }
