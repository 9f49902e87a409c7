-- freeze: hold a sale to the number of its partitions, and each server to its place among them, from the first load on.
--
-- KEYS[1]  meta       hash     of the sale without partitions: layout, seq, deliveries; partitions: how many, and where
-- ARGV[1]  wanted     string   number of partitions, number of servers, and which one this is
-- ARGV[2]  begins     0/1      1: write it where nothing is there
--
-- Returns {code, what stands}
--    1  as wanted
--    0  nothing is there
--   -9  other values: of other partitions, or a sale that has none
local stands = redis.call("HMGET", KEYS[1], "partitions", "layout", "seq", "deliveries")
if stands[1] then
  return { stands[1] == ARGV[1] and 1 or -9, stands[1] }
end
if stands[2] or stands[3] or stands[4] then -- a syncer's lease alone begins none
  return { -9, "1 1 0" }
end
if ARGV[2] == "0" then
  return { 0, "" }
end
redis.call("HSET", KEYS[1], "layout", "partitions", "partitions", ARGV[1])
return { 1, ARGV[1] }
