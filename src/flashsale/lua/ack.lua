-- ack: drop elements whose orders are committed, and mark the orders PERSISTED.
--
-- A commit is a fact, so no lease is asked for.
--
-- KEYS[1]   leases    sorted set  delivery, or a claim's name -> lease end
-- KEYS[2]   claimed   hash        delivery -> attempts|lease|body; a claim's name -> bodies, see claims.lua
-- KEYS[3]   orders    hash        the ledger
-- KEYS[4]   holds     sorted set  order id -> payment deadline
-- KEYS[5..]           hashes      stock of each item: hold
-- ARGV[1]   claims    integer     claims that are dropped whole
-- ARGV[2]   parts     integer     claims of which a part is dropped
-- ARGV[3]   count     integer     elements of such parts, and those with a lease of their own
-- ARGV[4..]           strings     per item: how many of its orders; then names of claims, of parts; per element: delivery;
--                                 then order ids by item
--
-- Returns {how many elements were dropped, Redis TIME in seconds}

-- include: number
-- include: clock
-- include: claims
-- include: persisted
local claims = 4 + #KEYS - 4 -- where the names begin
local parts = claims + tonumber(ARGV[1])
local elements = parts + tonumber(ARGV[2])
local ids = elements + tonumber(ARGV[3])
redis.call("ZCARD", KEYS[1])
redis.call("HLEN", KEYS[2])
local dropped = 0
local time = persist(KEYS[3], KEYS[4], 5, 4, ids, function()
  local deliveries, gone = { unpack(ARGV, elements, ids - 1) }, {}
  for at = claims, parts - 1 do
    local first, count = numbers(ARGV[at])
    redis.call("ZREM", KEYS[1], ARGV[at])
    if redis.call("HDEL", KEYS[2], ARGV[at]) == 1 then
      dropped = dropped + count
    else -- it was split
      local digits = counter(first - 1)
      for _ = 1, count do
        deliveries[#deliveries + 1] = digits()
      end
    end
  end
  for _, delivery in ipairs(elements > parts and deliveries or {}) do
    gone[delivery] = true
  end
  for at = parts, elements - 1 do
    local _, left = split(KEYS[1], KEYS[2], ARGV[at], gone)
    dropped = dropped + left
  end
  for from = 1, #deliveries, 2000 do
    local to = math.min(from + 1999, #deliveries)
    redis.call("ZREM", KEYS[1], unpack(deliveries, from, to))
    dropped = dropped + redis.call("HDEL", KEYS[2], unpack(deliveries, from, to))
  end
end)
return { dropped, time }
