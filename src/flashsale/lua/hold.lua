-- hold: give a buyer who is paying more time.
--
-- KEYS[1]  holds    sorted set  order id -> payment deadline
-- ARGV[1]  order    string      order id
-- ARGV[2]  seconds  number      from now; a later deadline stands
--
-- Returns a code
--    1  the deadline is at least that far away
--    0  too late, or no deadline: not persisted yet, paid, released, or of an item without a hold

-- include: clock
local current, time = redis.call("ZSCORE", KEYS[1], ARGV[1]), now()
if not current or tonumber(current) <= time then
  return 0
end
local wanted = time + tonumber(ARGV[2])
if wanted > tonumber(current) then
  redis.call("ZADD", KEYS[1], string.format("%.6f", wanted), ARGV[1])
end
return 1
