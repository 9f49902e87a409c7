-- wipe: empty the stock of one goods for a rebuild; only while the sale is closed in this epoch.
--
-- KEYS[1]  meta    hash     epoch, state
-- KEYS[2]  stock   hash     replaced
-- KEYS[3]  buyers  hash     removed
-- KEYS[4]  goods   set      goods ids of the sale
-- ARGV[1]  epoch   integer  of the rebuild
-- ARGV[2]  goods   string   goods id
-- ARGV[3]  total   integer  units for sale
-- ARGV[4..]        strings  field and value of the policy: opens_at, closes_at, per_buyer, hold, version
--
-- Returns a code
--    1  wiped
--   -8  not closed, or another epoch
local meta = redis.call("HMGET", KEYS[1], "epoch", "state")
if meta[1] ~= ARGV[1] or meta[2] ~= "closed" then
  return -8
end
redis.call("UNLINK", KEYS[2], KEYS[3])
redis.call("HSET", KEYS[2], "Total", ARGV[3], "Booked", "0", "Ledger", "0", unpack(ARGV, 4))
redis.call("SADD", KEYS[4], ARGV[2])
return 1
