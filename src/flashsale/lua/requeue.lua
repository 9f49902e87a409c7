-- requeue: put dead letters back on the list; their orders are QUEUED again.
--
-- KEYS[1]   dead        hash     order id (or a blank and the delivery) -> attempts|lease|body
-- KEYS[2]   orders      hash     the ledger
-- KEYS[3]   order_list  list     JSON orders
-- KEYS[4]   wakeup      list     wakes a waiting worker
-- ARGV[1..]             strings  fields of dead
--
-- Returns how many went back

-- include: record
-- include: queue
local letters, wakeups = redis.call("HMGET", KEYS[1], unpack(ARGV)), redis.call("LLEN", KEYS[4])
local known = redis.call("HMGET", KEYS[2], unpack(ARGV))
redis.call("LLEN", KEYS[3])
local back = 0
for i, field in ipairs(ARGV) do
  local body = string.match(letters[i] or "", "^%d+|%d+|(.*)$")
  if body then
    redis.call("HDEL", KEYS[1], field)
    local state, quantity, gated, of, seq, buyer = parse(known[i] or "")
    if state == "DEAD" then
      redis.call("HSET", KEYS[2], field, record("QUEUED", quantity, gated, of, seq, buyer))
    end
    redis.call("LPUSH", KEYS[3], body)
    back = back + 1
  end
end
if back > 0 then
  wake(KEYS[4], wakeups)
end
return back
