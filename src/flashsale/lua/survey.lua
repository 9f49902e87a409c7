-- survey: what one partition has of one item, and each transfer that it knows of.
--
-- KEYS[1]  meta       hash    epoch, state
-- KEYS[2]  stock      hash    Total, Booked; in partition 0 Allotted
-- KEYS[3]  transfers  hash    moves; `to:NN` is "seq units" of the last one sent there, with 0 units once it has landed;
--                             `from:NN` is the seq of the last one credited from there
-- KEYS[4]  count      string  units that may pass the gate here
-- KEYS[5]  access     string  units that have passed
-- ARGV[1..]           strings fields of the transfers: to name them takes no right that would also read a whole ledger
--
-- Returns {code, epoch, state, left, total, Allotted or "", values of the fields, "" where there is none}; left is below
-- 0 where orders came back after a loss that had taken the units which they hold
--    1  fine
--   -1  unknown item
--   -2  corrupt

-- include: number
-- include: goods
-- include: partition
local meta = redis.call("HMGET", KEYS[1], "epoch", "state")
local here = partition(2)
if here.code then
  return { here.code, meta[1] or "", meta[2] or "", "0", "0", "", {} }
end
local allotted, transfers = redis.call("HGET", KEYS[2], "Allotted"), redis.call("HMGET", KEYS[3], unpack(ARGV))
for i, value in ipairs(transfers) do
  transfers[i] = value or ""
end
return { 1, meta[1] or "", meta[2] or "", show(here.left), show(here.total), allotted or "", transfers }
