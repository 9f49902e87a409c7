-- nack: give back elements, to be claimed again after a delay. Only the lease's holder may.
--
-- KEYS[1]   leases   sorted set  delivery -> lease end
-- KEYS[2]   claimed  hash        delivery -> attempts|lease|body
-- ARGV[1]   delay    number      seconds
-- ARGV[2]   count    0/1         0: this attempt does not count
-- ARGV[3..]          groups      per element: delivery, lease
--
-- Returns how many were let go

-- include: clock
local at_ = string.format("%.6f", now() + tonumber(ARGV[1]))
redis.call("ZCARD", KEYS[1])
local gone = 0
for at = 3, #ARGV, 2 do
  local attempts, lease, body = string.match(redis.call("HGET", KEYS[2], ARGV[at]) or "", "^(%d+)|(%d+)|(.*)$")
  if lease == ARGV[at + 1] then
    if ARGV[2] == "0" then
      attempts = string.format("%.0f", math.max(0, tonumber(attempts) - 1))
    end
    redis.call("ZREM", KEYS[1], ARGV[at])
    redis.call("HSET", KEYS[2], ARGV[at], attempts .. "|0|" .. body)
    redis.call("ZADD", KEYS[1], at_, ARGV[at])
    gone = gone + 1
  end
end
return gone
