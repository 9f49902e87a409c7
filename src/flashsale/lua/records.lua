-- records: read what the ledger knows of orders, in a sale that this release can read.
--
-- KEYS[1]  meta    hash     layout, state, seq
-- KEYS[2]  orders  hash     the ledger
-- ARGV[1..]        strings  order ids
--
-- Returns {Redis TIME in seconds, the record of each order, or nil; 1 if others may come back: the sale is closed, or its
-- ledger lost, else 0}

-- include: number
-- include: layout
-- include: clock
-- include: lost
local meta = redis.call("HMGET", KEYS[1], "state", "seq")
local waits = meta[1] == "closed" or lost(meta[1], sequence(meta[2]), {})
return { string.format("%.6f", now()), redis.call("HMGET", KEYS[2], unpack(ARGV)), waits and 1 or 0 }
