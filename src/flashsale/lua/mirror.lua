-- mirror: make one gate follow the stock: count, pause, cap, slots that leaked; write a start flag that is due.
--
-- KEYS[1]  count   string   units that may pass
-- KEYS[2]  start   string   start flag
-- KEYS[3]  access  string   units that passed
-- KEYS[4]  window  hash     opens_at, closes_at, pause, auto, per_buyer
-- KEYS[5]  stock   hash     Total, Booked; named only where gate and stock share a Redis
-- ARGV[1]  count   integer  the stock's total, where KEYS[5] is not named
-- ARGV[2]  booked  integer  the stock's booked units, likewise: access is never below them
-- ARGV[3]  access  integer  what access was at the last look, if the stock has not moved since, else ""
-- ARGV[4]  pause   0/1      the sale is paused or closed
-- ARGV[5]  cap     integer  most units of one buyer, or "" for no cap
--
-- Returns {code, access that stands, slots returned}
--    1  mirrored
--   -1  unknown item
--   -2  corrupt

-- include: number
-- include: clock
-- include: window
-- include: gate
local time = now()
local gate = read_gate(time, 1)
if gate.code == -1 or gate.code == -2 then
  return { gate.code, "0", "0" }
end
local stock = KEYS[5] and redis.call("HMGET", KEYS[5], "Total", "Booked") or {}
local count, booked, access = integer(stock[1] or ARGV[1]), integer(stock[2] or ARGV[2]), gate.access
if not count or not booked then
  return { -2, "0", "0" }
end
if show(access) == ARGV[3] then
  access = math.min(access, booked) -- nobody is between gate and stock: what is above booked has leaked
end
access = math.max(access, math.min(booked, count))
redis.call("SET", KEYS[1], show(math.max(count, access)))
redis.call("SET", KEYS[3], show(access))
redis.call("HSET", KEYS[4], "pause", ARGV[4])
if ARGV[5] == "" then
  redis.call("HDEL", KEYS[4], "per_buyer")
else
  redis.call("HSET", KEYS[4], "per_buyer", ARGV[5])
end
start(gate)
if gate.code == -4 then
  redis.call("SET", KEYS[2], "0")
end
return { 1, show(access), show(math.max(0, gate.access - access)) }
