-- resize: change how many units may pass; stops at access.
--
-- KEYS[1]  count   string   units that may pass
-- KEYS[2]  access  string   units that passed
-- ARGV[1]  count   integer  units that may pass from now on
--
-- Returns the count that stands, or
--   -1  unknown item
--   -2  corrupt

-- include: number
if not redis.call("GET", KEYS[1]) then
  return -1
end
local access = integer(redis.call("GET", KEYS[2]) or "0")
if not access then
  return -2
end
local count = math.max(integer(ARGV[1]), access)
redis.call("SET", KEYS[1], show(count))
return count
