-- recoverable: whether an order that the ledger does not know may come back: the sale is closed, or its ledger lost.
--
-- KEYS[1]  meta    hash  state, seq
-- KEYS[2]  orders  hash  the ledger
--
-- Returns 1 or 0

-- include: number
-- include: lost
local meta = redis.call("HMGET", KEYS[1], "state", "seq")
return (meta[1] == "closed" or lost(meta[1], sequence(meta[2]), {})) and 1 or 0
