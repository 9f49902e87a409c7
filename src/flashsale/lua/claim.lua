-- claim: lease elements to one worker: those whose lease has ended first, then from the right of the list.
--
-- KEYS[1]  meta        hash        layout; deliveries: a counter
-- KEYS[2]  order_list  list        JSON orders
-- KEYS[3]  wakeup      list        wakes a waiting worker
-- KEYS[4]  leases      sorted set  delivery -> lease end
-- KEYS[5]  claimed     hash        delivery -> attempts|lease|body
-- ARGV[1]  limit       integer     most elements
-- ARGV[2]  lease       number      seconds
--
-- Returns {again, before, bodies}: delivery, lease, attempts and body of each element claimed before, one after the
-- other; the bodies of the new ones, whose delivery and lease are before + 1, before + 2, ...

-- include: number
-- include: layout
-- include: clock
-- include: queue
local limit, time = tonumber(ARGV[1]), now()
local until_ = string.format("%.6f", time + tonumber(ARGV[2]))
local counted = redis.call("HGET", KEYS[1], "deliveries")
if not counted and redis.call("HLEN", KEYS[5]) > 0 then -- meta was lost: no number may stand in `claimed` already
  counted = show(math.floor(time) * 1e5)
end
local last = integer(counted or "0")
if not last then
  return redis.error_reply("WRONGTYPE meta deliveries is not an integer")
end
redis.call("LLEN", KEYS[2])
local wakeups = redis.call("LLEN", KEYS[3])
local expired = redis.call("ZRANGEBYSCORE", KEYS[4], "-inf", string.format("%.6f", time), "LIMIT", 0, limit)
local kept = #expired > 0 and redis.call("HMGET", KEYS[5], unpack(expired)) or { redis.call("HLEN", KEYS[5]) }

local again, n, fields, deliveries = {}, 0, {}, {}
local function keep(delivery, entry)
  n = n + 1
  deliveries[n], fields[2 * n - 1], fields[2 * n] = delivery, delivery, entry
end

if #expired > 0 then
  redis.call("ZREM", KEYS[4], unpack(expired)) -- the first write frees memory, so that a full Redis still drains
  for i, delivery in ipairs(expired) do
    local attempts, body = string.match(kept[i] or "", "^(%d+)|%d+|(.*)$")
    if attempts and string.find(delivery, "^%d+$") then
      last, attempts = last + 1, show(math.min(tonumber(attempts), 1000) + 1)
      local at, lease = #again, show(last)
      again[at + 1], again[at + 2], again[at + 3], again[at + 4] = delivery, lease, attempts, body
      keep(delivery, attempts .. "|" .. lease .. "|" .. body)
    end
  end
end
local before = show(last)
local bodies = #expired < limit and redis.call("RPOP", KEYS[2], limit - #expired) or {}
local digits = counter(last)
for _, body in ipairs(bodies) do
  local delivery = digits()
  keep(delivery, "1|" .. delivery .. "|" .. body)
end
if n > 0 then
  local scores = {}
  for i = 1, n do -- the last first: a short sorted set is searched from its low end for each
    scores[2 * i - 1], scores[2 * i] = until_, deliveries[n + 1 - i]
  end
  redis.call("HSET", KEYS[5], unpack(fields))
  redis.call("ZADD", KEYS[4], unpack(scores))
  redis.call("HSET", KEYS[1], "deliveries", show(last + #bodies))
  if redis.call("LLEN", KEYS[2]) > 0 then
    wake(KEYS[3], wakeups)
  end
end
return { again, before, bodies }
