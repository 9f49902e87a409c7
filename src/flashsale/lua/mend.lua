-- mend: after a loss, put the units that are missing into partition 0, or take out of it those that are too many; once.
--
-- KEYS[1]  meta       hash     epoch, state
-- KEYS[2]  stock      hash     Total, Booked
-- KEYS[3]  transfers  hash     mended: how often
-- KEYS[4]  count      string   of the gate here
-- KEYS[5]  access     string   of the gate here
-- ARGV[1]  epoch      string   of the sale, as the caller knows it
-- ARGV[2]  mended     string   as the caller read it before it counted
-- ARGV[3]  units      string   integer to add, or with a minus to take away; no more are taken than are free
--
-- Returns {code, units added, or with a minus taken away}
--    1  mended
--    0  somebody else has mended meanwhile
--   -1  unknown item
--   -2  corrupt
--   -5  closed for a rebuild
--   -8  another epoch

-- include: number
-- include: goods
-- include: partition
local refused, here = fenced(ARGV[1]), partition(2)
if refused or here.code then
  return { refused or here.code, "0" }
end
if (redis.call("HGET", KEYS[3], "mended") or "0") ~= ARGV[2] then
  return { 0, "0" }
end
local units = math.max(tonumber(ARGV[3]), -math.max(0, here.left))
add(here, 2, units)
redis.call("HINCRBY", KEYS[3], "mended", "1")
return { 1, show(units) }
