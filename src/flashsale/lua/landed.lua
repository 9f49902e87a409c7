-- landed: a transfer was credited: the next one to that partition may begin.
--
-- KEYS[1]  meta       hash    epoch, state
-- KEYS[2]  transfers  hash    to:NN and from:NN, moves
-- ARGV[1]  epoch      string  of the sale, as the caller knows it
-- ARGV[2]  to         string  the other partition, two digits in hex
-- ARGV[3]  seq        string  of the transfer
--
-- Returns a code
--    1  closed now
--    0  it is not open any more
--   -5  closed for a rebuild
--   -8  another epoch

-- include: number
-- include: goods
-- include: partition
local refused, field = fenced(ARGV[1]), "to:" .. ARGV[2]
local seq, units = sent(redis.call("HGET", KEYS[2], field) or nil)
if refused then
  return refused
end
if seq ~= ARGV[3] or units == "0" then
  return 0
end
redis.call("HSET", KEYS[2], field, seq .. " 0")
return 1
