-- credit: put the units of a transfer into this partition, once.
--
-- KEYS[1]  meta       hash     epoch, state
-- KEYS[2]  stock      hash     Total
-- KEYS[3]  transfers  hash     to:NN and from:NN, moves
-- KEYS[4]  count      string   of the gate here
-- KEYS[5]  access     string   of the gate here
-- ARGV[1]  epoch      string   of the sale, as the caller knows it
-- ARGV[2]  from       string   the other partition, two digits in hex
-- ARGV[3]  seq        integer  of the transfer
-- ARGV[4]  units      integer  of the transfer
--
-- Returns a code
--    1  credited now
--    2  credited before
--   -1  unknown item
--   -2  corrupt
--   -5  closed for a rebuild
--   -8  another epoch

-- include: number
-- include: goods
-- include: partition
local refused, here = fenced(ARGV[1]), partition(2)
local field, seq = "from:" .. ARGV[2], integer(ARGV[3])
local last = integer(redis.call("HGET", KEYS[3], field) or "0")
refused = refused or here.code or not last and -2
if refused then
  return refused
end
if seq <= last then
  return 2
end
add(here, 2, integer(ARGV[4]))
redis.call("HSET", KEYS[3], field, ARGV[3])
return 1
