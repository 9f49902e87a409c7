-- schedule: set the window of one gate; with a new opening the server's clock sets the start flag.
--
-- An item that somebody has stopped stays so while its opening is the same.
--
-- KEYS[1]  count      string  must exist
-- KEYS[2]  window     hash    opens_at, closes_at, auto
-- ARGV[1]  opens_at   number  epoch seconds, or "" for by hand
-- ARGV[2]  closes_at  number  epoch seconds, or "" for never
--
-- Returns a code
--    1  set
--   -1  unknown item
redis.call("HLEN", KEYS[2])
if not redis.call("GET", KEYS[1]) then
  return -1
end
local before = redis.call("HMGET", KEYS[2], "opens_at", "auto")
redis.call("HDEL", KEYS[2], "opens_at", "closes_at", "auto")
if ARGV[1] ~= "" then
  redis.call("HSET", KEYS[2], "opens_at", ARGV[1])
  if before[1] ~= ARGV[1] or before[2] == "1" then
    redis.call("HSET", KEYS[2], "auto", "1")
  end
end
if ARGV[2] ~= "" then
  redis.call("HSET", KEYS[2], "closes_at", ARGV[2])
end
return 1
