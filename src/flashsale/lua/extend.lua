-- extend: hold on to elements longer. Only the lease's holder may.
--
-- KEYS[1]   leases   sorted set  delivery -> lease end
-- KEYS[2]   claimed  hash        delivery -> attempts|lease|body
-- ARGV[1]   lease    number      seconds from now
-- ARGV[2..]          groups      per element: delivery, lease
--
-- Returns how many are still held

-- include: clock
local at_ = string.format("%.6f", now() + tonumber(ARGV[1]))
redis.call("ZCARD", KEYS[1])
local held = 0
for at = 2, #ARGV, 2 do
  if string.match(redis.call("HGET", KEYS[2], ARGV[at]) or "", "^%d+|(%d+)|") == ARGV[at + 1] then
    redis.call("ZADD", KEYS[1], at_, ARGV[at])
    held = held + 1
  end
end
return held
