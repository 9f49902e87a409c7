-- load: create the stock of one goods, once.
--
-- KEYS[1]  stock   hash     created
-- KEYS[2]  meta    hash     epoch, state, layout: created with the first goods
-- KEYS[3]  goods   set      goods ids of the sale
-- ARGV[1]  goods   string   goods id
-- ARGV[2]  total   integer  units for sale
-- ARGV[3]  booked  integer  units already sold elsewhere
-- ARGV[4]  layout  integer  layout number of this release
-- ARGV[5]  policy  string   the values as one text: the same text again is the same request
-- ARGV[6..]        strings  field and value of the policy: opens_at, closes_at, per_buyer, hold, version
--
-- Returns {code, layout}
--    1  created, or created before with the same values
--   -9  exists with other values
--   -8  the sale was laid out by a newer release

-- include: number
local layout = redis.call("HGET", KEYS[2], "layout")
redis.call("SISMEMBER", KEYS[3], ARGV[1])
if layout and (integer(layout) or 0) > integer(ARGV[4]) then
  return { -8, layout }
end
local values = redis.call("HMGET", KEYS[1], "Total", "Booked", "preload")
local foreign = not values[3] and values[1] == ARGV[2] and #ARGV == 7 -- made elsewhere; only a version is asked for
if (values[1] or values[2]) and not foreign then
  return { values[3] == ARGV[5] and 1 or -9, ARGV[4] }
end
if not foreign then
  redis.call("HSET", KEYS[1], "Total", ARGV[2], "Booked", ARGV[3], "Ledger", "0", "preload", ARGV[5], unpack(ARGV, 6))
end
redis.call("SADD", KEYS[3], ARGV[1])
if not layout then
  redis.call("HSETNX", KEYS[2], "epoch", "1")
  redis.call("HSETNX", KEYS[2], "state", "open")
  redis.call("HSET", KEYS[2], "layout", ARGV[4])
end
return { 1, ARGV[4] }
