-- close: begin an epoch: nothing is sold until it is opened, and scripts of older epochs are refused.
--
-- Deliveries get numbers that no worker of an older epoch can hold: an ack asks for nothing else.
--
-- KEYS[1]  meta   hash     epoch, state, layout, deliveries
-- ARGV[1]  epoch  integer  of the database, just raised
--
-- Returns a code
--    1  closed
--   -8  Redis has a newer epoch

-- include: number
-- include: layout
local epoch = integer(redis.call("HGET", KEYS[1], "epoch") or "0")
if epoch and epoch > integer(ARGV[1]) then
  return -8
end
local deliveries = math.max(integer(redis.call("HGET", KEYS[1], "deliveries") or "0") or 0, integer(ARGV[1]) % 1e6 * 1e9)
redis.call("HSETNX", KEYS[1], "layout", show(NEWEST))
redis.call("HSET", KEYS[1], "epoch", ARGV[1], "state", "closed", "deliveries", show(deliveries))
return 1
