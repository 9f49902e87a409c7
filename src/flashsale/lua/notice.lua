-- notice: close a sale that has lost what only a rebuild brings back: its ledger, or meta.
--
-- KEYS[1]   meta    hash    layout, state, epoch, seq
-- KEYS[2]   orders  hash    the ledger
-- KEYS[3..]         hashes  stock of each goods that was loaded once
--
-- Returns {what is lost: orders, meta, or nothing; the state that stands}

-- include: number
-- include: layout
-- include: lost
local meta, gone = redis.call("HMGET", KEYS[1], "state", "epoch", "seq"), ""
local orphans = false -- goods that we have loaded, or an order has changed, without a trace in meta
for key = 3, (meta[1] or meta[2] or meta[3]) and 0 or #KEYS do
  orphans = orphans or redis.pcall("HEXISTS", KEYS[key], "Ledger") == 1
end
if meta[1] ~= "closed" and (orphans or lost(sequence(meta[3]))) then
  gone, meta[1] = sequence(meta[3]) == 0 and "meta" or "orders", "closed"
  redis.call("HSET", KEYS[1], "state", "closed")
end
return { gone, meta[1] or "open" }
