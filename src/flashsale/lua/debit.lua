-- debit: take free units out of this partition, on their way to another one. At most one transfer to each is open:
-- while it is, the answer is that one, and nothing is taken. So asking again is harmless, and needs no id.
--
-- KEYS[1]  meta       hash     epoch, state
-- KEYS[2]  stock      hash     Total, Booked
-- KEYS[3]  transfers  hash     to:NN and from:NN, moves
-- KEYS[4]  count      string   of the gate here
-- KEYS[5]  access     string   of the gate here
-- ARGV[1]  epoch      string   of the sale, as the caller knows it
-- ARGV[2]  to         string   the other partition, two digits in hex
-- ARGV[3]  units      integer  wished; where fewer are free, fewer are taken
-- ARGV[4]  seen       integer  the last transfer from here that the other one has credited, as the caller read it
--
-- Returns {code, seq, units}
--    1  taken now
--    2  this one is open: credit it first
--    0  nothing is free
--   -1  unknown item
--   -2  corrupt
--   -5  closed for a rebuild
--   -8  another epoch

-- include: number
-- include: goods
-- include: partition
local refused, here = fenced(ARGV[1]), partition(2)
local field = "to:" .. ARGV[2]
local seq, units = sent(redis.call("HGET", KEYS[3], field) or nil)
refused = refused or here.code or not seq and -2
if refused then
  return { refused, "0", "0" }
end
if units ~= "0" then
  return { 2, seq, units }
end
local taken = math.min(integer(ARGV[3]), here.left)
if taken < 1 then
  return { 0, "0", "0" }
end
seq, units = show(math.max(integer(seq), integer(ARGV[4])) + 1), show(taken)
add(here, 2, -taken)
redis.call("HSET", KEYS[3], field, seq .. " " .. units)
return { 1, seq, units }
