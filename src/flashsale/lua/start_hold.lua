-- start_hold: give an unpaid order the payment deadline that it lacks.
--
-- KEYS[1]  orders  hash        the ledger
-- KEYS[2]  holds   sorted set  order id -> payment deadline
-- KEYS[3]  stock   hash        hold, in seconds
-- ARGV[1]  order   string      order id
--
-- Returns a code
--    1  it has one now
--    0  it is not PERSISTED, or its item has no hold

-- include: clock
-- include: record
local state = parse(redis.call("HGET", KEYS[1], ARGV[1]) or "")
local hold = seconds(redis.call("HGET", KEYS[3], "hold"))
if state ~= "PERSISTED" or not hold then
  return 0
end
redis.call("ZADD", KEYS[2], "NX", string.format("%.6f", now() + hold), ARGV[1])
return 1
