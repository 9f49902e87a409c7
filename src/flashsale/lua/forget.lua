-- forget: empty ledger and deadlines for a rebuild; only while the sale is closed in this epoch.
--
-- KEYS[1]  meta    hash        epoch, state
-- KEYS[2]  orders  hash        the ledger: removed
-- KEYS[3]  holds   sorted set  removed
-- ARGV[1]  epoch   integer     of the rebuild
--
-- Returns a code
--    1  emptied
--   -8  not closed, or another epoch
local meta = redis.call("HMGET", KEYS[1], "epoch", "state")
if meta[1] ~= ARGV[1] or meta[2] ~= "closed" then
  return -8
end
redis.call("UNLINK", KEYS[2], KEYS[3])
return 1
