-- configure: set the total and the policy of one item under the version of its database row; never Booked.
--
-- KEYS[1]  stock    hash     Total, Booked, version and the policy
-- ARGV[1]  version  integer  of the row; older ones are refused
-- ARGV[2]  total    integer  units for sale, or "" to leave them: those of a partition move to others, and back. Lowered,
--                            Total stops at Booked. Booked may lie above it, after a restore: that raises no Total, or
--                            the database's guard would follow, and units be sold twice
-- ARGV[3..]         strings  field and value of the policy; an empty value removes the field
--
-- Returns {code, Total that stands}
--    1  set
--   -1  unknown item
--   -2  corrupt
--   -8  a newer version stands

-- include: number
-- include: goods
local goods = read(KEYS[1])
if goods.code then
  return { goods.code, "0" }
end
local current = integer(redis.call("HGET", KEYS[1], "version") or "0")
if not current then
  return { -2, "0" }
end
if integer(ARGV[1]) < current then
  return { -8, show(goods.total) }
end
local bound = goods.total > 0 and math.min(goods.booked, goods.total) or goods.booked -- 0: a rebuild has wiped it
local total = show(ARGV[2] == "" and goods.total or math.max(integer(ARGV[2]), bound))
redis.call("HSET", KEYS[1], "Total", total, "version", ARGV[1])
for i = 3, #ARGV, 2 do
  if ARGV[i + 1] == "" then
    redis.call("HDEL", KEYS[1], ARGV[i])
  else
    redis.call("HSET", KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
return { 1, total }
