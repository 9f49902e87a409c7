-- open: end the rebuild of an epoch: the sale goes on.
--
-- KEYS[1]    meta   hash     epoch, state
-- KEYS[2..]  stock  hash     of each item; tracked: removed
-- ARGV[1]    epoch  integer  of the rebuild
--
-- Returns a code
--    1  open
--   -8  another rebuild has begun a newer epoch
if redis.call("HGET", KEYS[1], "epoch") ~= ARGV[1] then
  return -8
end
for key = 2, #KEYS do
  redis.call("HDEL", KEYS[key], "tracked")
end
redis.call("HSET", KEYS[1], "state", "open")
return 1
