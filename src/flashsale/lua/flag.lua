-- flag: set the start flag by hand; a schedule that has not opened yet no longer will.
--
-- KEYS[1]  count   string  must exist
-- KEYS[2]  start   string  0 or 1
-- KEYS[3]  window  hash    auto: the clock may set the flag
-- ARGV[1]  flag    0/1     the start flag
--
-- Returns a code
--    1  set
--   -1  unknown item
redis.call("GET", KEYS[2])
redis.call("HLEN", KEYS[3])
if not redis.call("GET", KEYS[1]) then
  return -1
end
redis.call("SET", KEYS[2], ARGV[1])
redis.call("HDEL", KEYS[3], "auto")
return 1
