-- allot: set how many units the whole sale has of an item, under the version of its database row; in partition 0, where
-- units arrive and to which they return. To take back more than is free here, others must send it here first.
--
-- KEYS[1]  meta       hash     epoch, state
-- KEYS[2]  stock      hash     Total, Booked, Allotted, version
-- KEYS[3]  transfers  hash     to:NN and from:NN, moves
-- KEYS[4]  count      string   of the gate here
-- KEYS[5]  access     string   of the gate here
-- ARGV[1]  epoch      string   of the sale, as the caller knows it
-- ARGV[2]  version    integer  of the row; older ones are refused
-- ARGV[3]  total      integer  units wished, of the whole sale
--
-- Returns {code, units that the whole sale has}
--    1  set, or as near as the free units here allow
--   -1  unknown item
--   -2  corrupt
--   -5  closed for a rebuild, or another epoch
--   -8  a newer version stands

-- include: number
-- include: goods
-- include: partition
local refused, here = fenced(ARGV[1]) and -5, partition(2)
local texts = here.code and {} or redis.call("HMGET", KEYS[2], "Allotted", "version")
local allotted, version = integer(texts[1]), integer(texts[2] or "0")
refused = refused or here.code or not (allotted and version) and -2
if refused then
  return { refused, "0" }
end
if integer(ARGV[2]) < version then
  return { -8, show(allotted) }
end
local more = math.max(integer(ARGV[3]) - allotted, -math.max(0, here.left))
if more ~= 0 then
  add(here, 2, more)
end
redis.call("HSET", KEYS[2], "Allotted", show(allotted + more), "version", ARGV[2])
return { 1, show(allotted + more) }
