-- KEYS[1] is meta: a sale that has a layout this release does not read is refused before the first write.
-- This release reads OLDEST to NEWEST, leaves a sale in the layout it was begun in, and begins new ones in NEWEST.
local OLDEST, NEWEST = 1, 2
local layout = redis.call("HGET", KEYS[1], "layout")
if layout and ((integer(layout) or 0) < OLDEST or (integer(layout) or 0) > NEWEST) then
  if layout == "partitions" then -- which an older release takes for layout 0
    return redis.error_reply("PARTITIONS " .. (redis.call("HGET", KEYS[1], "partitions") or ""))
  end
  return redis.error_reply(string.format("LAYOUT %.0f %.0f %.0f", integer(layout) or 0, OLDEST, NEWEST))
end
