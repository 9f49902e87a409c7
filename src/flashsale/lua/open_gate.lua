-- open_gate: create the gate of one item, once, shut.
--
-- KEYS[1]  count   string   created
-- KEYS[2]  start   string   created as 0
-- KEYS[3]  access  string   created as 0
-- KEYS[4]  window  hash     opens_at, closes_at, auto, per_buyer; preload: the count it was created with
-- ARGV[1]  count      integer  units that may pass
-- ARGV[2]  opens_at   number   epoch seconds, or "" for by hand
-- ARGV[3]  closes_at  number   epoch seconds, or "" for never
-- ARGV[4]  cap        integer  most units of one buyer, or "" for no cap
--
-- Returns a code
--    1  created, or created before with the same count
--   -9  exists with another count
local count, preload = redis.call("GET", KEYS[1]), redis.call("HGET", KEYS[4], "preload")
if count then
  return (count == ARGV[1] or preload == ARGV[1]) and 1 or -9
end
redis.call("SET", KEYS[1], ARGV[1])
redis.call("SETNX", KEYS[2], "0")
redis.call("SETNX", KEYS[3], "0")
redis.call("HSET", KEYS[4], "preload", ARGV[1])
if ARGV[2] ~= "" then
  redis.call("HSET", KEYS[4], "opens_at", ARGV[2], "auto", "1")
end
if ARGV[3] ~= "" then
  redis.call("HSET", KEYS[4], "closes_at", ARGV[3])
end
if ARGV[4] ~= "" then
  redis.call("HSET", KEYS[4], "per_buyer", ARGV[4])
end
return 1
