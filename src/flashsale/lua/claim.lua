-- claim: lease elements to one worker: those whose lease has ended first, then from the right of the list.
--
-- KEYS[1]  meta        hash        deliveries: a counter
-- KEYS[2]  order_list  list        JSON orders
-- KEYS[3]  bell        list        wakes a waiting worker
-- KEYS[4]  leases      sorted set  delivery -> lease end
-- KEYS[5]  claimed     hash        delivery -> attempts|lease|body
-- ARGV[1]  limit       integer     most elements
-- ARGV[2]  lease       number      seconds
--
-- Returns delivery, lease, attempts and body of each, one after the other

-- include: number
-- include: clock
local limit, time = tonumber(ARGV[1]), now()
local until_ = string.format("%.6f", time + tonumber(ARGV[2]))
local counter = integer(redis.call("HGET", KEYS[1], "deliveries") or "0")
if not counter then
  return redis.error_reply("WRONGTYPE meta deliveries is not an integer")
end
redis.call("LLEN", KEYS[2])
local rung = redis.call("LLEN", KEYS[3])
local expired = redis.call("ZRANGEBYSCORE", KEYS[4], "-inf", string.format("%.6f", time), "LIMIT", 0, limit)
local kept = #expired > 0 and redis.call("HMGET", KEYS[5], unpack(expired)) or { redis.call("HLEN", KEYS[5]) }

local claims, fields, scores = {}, {}, {}
local function lease(delivery, attempts, body)
  counter = counter + 1
  claims[#claims + 1], claims[#claims + 2] = delivery, show(counter)
  claims[#claims + 1], claims[#claims + 2] = show(attempts), body
  fields[#fields + 1], fields[#fields + 2] = delivery, show(attempts) .. "|" .. show(counter) .. "|" .. body
  scores[#scores + 1], scores[#scores + 2] = until_, delivery
end

if #expired > 0 then
  redis.call("ZREM", KEYS[4], unpack(expired)) -- the first write frees memory, so that a full Redis still drains
  for i, delivery in ipairs(expired) do
    local attempts, body = string.match(kept[i] or "", "^(%d+)|%d+|(.*)$")
    if attempts then
      lease(delivery, tonumber(attempts) + 1, body)
    end
  end
end
if #expired < limit then
  for _, body in ipairs(redis.call("RPOP", KEYS[2], limit - #expired) or {}) do
    lease(show(counter + 1), 1, body)
  end
end
if #claims > 0 then
  redis.call("HSET", KEYS[5], unpack(fields))
  redis.call("ZADD", KEYS[4], unpack(scores))
  redis.call("HSET", KEYS[1], "deliveries", show(counter))
  if rung == 0 and redis.call("LLEN", KEYS[2]) > 0 then
    redis.call("LPUSH", KEYS[3], "1")
  end
end
return claims
