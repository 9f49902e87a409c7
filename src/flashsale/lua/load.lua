-- load: create the stock of one item, once.
--
-- KEYS[1]  meta    hash     epoch, state, layout: created with the first item
-- KEYS[2]  stock   hash     created
-- KEYS[3]  goods   set      item ids of the sale
-- ARGV[1]  goods   string   item id
-- ARGV[2]  total   integer  units for sale
-- ARGV[3]  booked  integer  units already sold elsewhere
-- ARGV[4]  policy  string   the values as one text: the same text again is the same request
-- ARGV[5..]        strings  field and value of the policy: opens_at, closes_at, per_buyer, hold, version
--
-- Returns a code
--    1  created, or created before with the same values
--   -9  exists with other values

-- include: number
-- include: layout
redis.call("SISMEMBER", KEYS[3], ARGV[1])
local values = redis.call("HMGET", KEYS[2], "Total", "Booked", "preload")
local external = not values[3] and values[1] == ARGV[2] and #ARGV == 6 -- made elsewhere; only a version is asked for
if (values[1] or values[2]) and not external then
  return values[3] == ARGV[4] and 1 or -9
end
if not external then
  redis.call("HSET", KEYS[2], "Total", ARGV[2], "Booked", ARGV[3], "Ledger", "0", "preload", ARGV[4], unpack(ARGV, 5))
end
redis.call("SADD", KEYS[3], ARGV[1])
if not layout then
  redis.call("HSETNX", KEYS[1], "epoch", "1")
  redis.call("HSETNX", KEYS[1], "state", "open")
  redis.call("HSET", KEYS[1], "layout", show(NEWEST))
end
return 1
