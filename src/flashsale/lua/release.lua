-- release: give back units that were taken past the ledger, never more than there are.
--
-- KEYS[1]  stock  hash     Total, Booked, Ledger
-- ARGV[1]  units  integer  1..1000000
--
-- Returns the units given back, or
--    0  none were taken, or not a quantity
--   -1  unknown item
--   -2  corrupt

-- include: number
-- include: goods
local units = amount(ARGV[1])
if not units then
  return 0
end
local goods = read(KEYS[1])
if goods.code then
  return goods.code
end
local back = math.min(units, math.max(0, goods.booked - goods.ledger))
if back > 0 then
  redis.call("HSET", KEYS[1], "Booked", show(goods.booked - back))
end
return back
