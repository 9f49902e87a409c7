-- deduct: take units of one item, if that many are left (the article's script, hardened).
--
-- KEYS[1]  stock  hash     Total, Booked
-- ARGV[1]  units  integer  1..1000000
--
-- Returns the units taken, or
--    0  sold out, or not a quantity
--   -1  unknown goods
--   -2  Total or Booked is not a canonical integer

-- include: number
local units = integer(ARGV[1])
if not units or units < 1 or units > 1000000 then
  return 0
end
local values = redis.pcall("HMGET", KEYS[1], "Total", "Booked")
if values.err then
  return -2
end
if not values[1] and not values[2] then
  return -1
end
local total, booked = integer(values[1]), integer(values[2])
if not total or not booked then
  return -2
end
if booked + units > total then
  return 0
end
redis.call("HINCRBY", KEYS[1], "Booked", show(units))
return units
