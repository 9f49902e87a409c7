-- open: end the rebuild of an epoch: the sale goes on.
--
-- KEYS[1]  meta   hash     epoch, state
-- ARGV[1]  epoch  integer  of the rebuild
--
-- Returns a code
--    1  open
--   -8  another rebuild has begun a newer epoch
if redis.call("HGET", KEYS[1], "epoch") ~= ARGV[1] then
  return -8
end
redis.call("HSET", KEYS[1], "state", "open")
return 1
