-- nack: give back elements, to be claimed again after a delay. Only the lease's holder may.
--
-- KEYS[1]   leases   sorted set  delivery, or a claim's name -> lease end
-- KEYS[2]   claimed  hash        delivery -> attempts|lease|body; a claim's name -> bodies, see claims.lua
-- ARGV[1]   parts    integer     claims that the elements are of
-- ARGV[2]   delay    number      seconds
-- ARGV[3]   count    0/1         0: this attempt does not count
-- ARGV[4..]          strings     names of the claims; then per element: delivery, lease
--
-- Returns how many were let go

-- include: number
-- include: clock
-- include: claims
local at_ = string.format("%.6f", now() + tonumber(ARGV[2]))
redis.call("ZCARD", KEYS[1])
local gone, first = 0, 4 + tonumber(ARGV[1])
for at = 4, first - 1 do
  split(KEYS[1], KEYS[2], ARGV[at])
end
for at = first, #ARGV, 2 do
  local attempts, lease, body = string.match(redis.call("HGET", KEYS[2], ARGV[at]) or "", "^(%d+)|(%d+)|(.*)$")
  if lease == ARGV[at + 1] then
    if ARGV[3] == "0" then
      attempts = string.format("%.0f", math.max(0, tonumber(attempts) - 1))
    end
    redis.call("ZREM", KEYS[1], ARGV[at])
    redis.call("HSET", KEYS[2], ARGV[at], attempts .. "|0|" .. body)
    redis.call("ZADD", KEYS[1], at_, ARGV[at])
    gone = gone + 1
  end
end
return gone
