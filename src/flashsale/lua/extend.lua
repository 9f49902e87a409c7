-- extend: hold on to elements longer. Only the lease's holder may.
--
-- KEYS[1]   leases   sorted set  delivery, or a claim's name -> lease end
-- KEYS[2]   claimed  hash        delivery -> attempts|lease|body; a claim's name -> bodies, see claims.lua
-- ARGV[1]   claims   integer     claims of which all is held on to
-- ARGV[2]   parts    integer     claims of which a part is
-- ARGV[3]   lease    number      seconds from now
-- ARGV[4..]          strings     names of claims, of parts; then per element of such parts, and per element with a lease of
--                                its own: delivery, lease
--
-- Returns how many are still held

-- include: number
-- include: clock
-- include: claims
local at_ = string.format("%.6f", now() + tonumber(ARGV[3]))
redis.call("ZCARD", KEYS[1])
redis.call("HLEN", KEYS[2])
redis.call("ZREM", KEYS[1], "") -- the first write frees memory, so that a full Redis keeps who works on these
local held, parts = 0, 4 + tonumber(ARGV[1])
local first = parts + tonumber(ARGV[2])
local function hold(delivery, lease)
  if string.match(redis.call("HGET", KEYS[2], delivery) or "", "^%d+|(%d+)|") == lease then
    redis.call("ZADD", KEYS[1], at_, delivery)
    held = held + 1
  end
end
for at = 4, parts - 1 do
  local from, count = numbers(ARGV[at])
  if redis.call("HGET", KEYS[2], ARGV[at]) then
    redis.call("ZADD", KEYS[1], at_, ARGV[at])
    held = held + count
  else -- it was split
    local digits = counter(from - 1)
    for _ = 1, count do
      local delivery = digits()
      hold(delivery, delivery)
    end
  end
end
for at = parts, first - 1 do
  split(KEYS[1], KEYS[2], ARGV[at])
end
for at = first, #ARGV, 2 do
  hold(ARGV[at], ARGV[at + 1])
end
return held
