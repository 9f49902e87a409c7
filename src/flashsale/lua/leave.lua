-- leave: give an admitted caller's slot back.
--
-- KEYS[1]  access  string   units that passed
-- ARGV[1]  units   integer  1..1000000
--
-- Returns the units given back, never more than had passed, or
--   -1  unknown item
--   -2  corrupt

-- include: number
local text = redis.call("GET", KEYS[1])
if not text then
  return -1
end
local access = integer(text)
if not access then
  return -2
end
local back = math.min(access, integer(ARGV[1]))
redis.call("SET", KEYS[1], show(access - back))
return back
