-- pause: hold or resume a whole sale.
--
-- KEYS[1]  meta   hash    layout; state: open, paused, closed
-- ARGV[1]  state  string  open or paused
--
-- Returns a code
--    1  set
--    0  the sale is closed: only a rebuild opens it
--   -1  no item was ever preloaded

-- include: number
-- include: layout
local state = redis.call("HGET", KEYS[1], "state")
if not state then
  return -1
end
if state == "closed" then
  return 0
end
redis.call("HSET", KEYS[1], "state", ARGV[1])
return 1
