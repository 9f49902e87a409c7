-- ack: drop elements whose orders are committed, and mark the orders PERSISTED.
--
-- A commit is a fact, so no lease is asked for.
--
-- KEYS[1]   leases    sorted set  delivery -> lease end
-- KEYS[2]   claimed   hash        delivery -> attempts|lease|body
-- KEYS[3]   orders    hash        the ledger
-- KEYS[4]   holds     sorted set  order id -> payment deadline
-- KEYS[5..]           hashes      stock of each item: hold
-- ARGV[1]   count     integer     elements
-- ARGV[2..]           strings     per item: how many of its orders; then per element: delivery; then order ids by item
--
-- Returns {how many elements were dropped, Redis TIME in seconds}

-- include: clock
local QUEUED = "^QUEUED(|[1-9]%d*|[0-3]|[%w_.-]+|%d+|[!-~]+)$" -- a record, and all of it but its state
local time, count, goods = now(), tonumber(ARGV[1]), #KEYS - 4
local first = 2 + goods + count -- of the order ids
redis.call("ZCARD", KEYS[1])
redis.call("HLEN", KEYS[2])
redis.call("ZCARD", KEYS[4])
local known = first <= #ARGV and redis.call("HMGET", KEYS[3], unpack(ARGV, first)) or { redis.call("HLEN", KEYS[3]) }
local holds = {}
for i = 1, goods do
  holds[i] = seconds(redis.pcall("HGET", KEYS[4 + i], "hold"))
end

local dropped = 0
if count > 0 then
  redis.call("ZREM", KEYS[1], unpack(ARGV, 2 + goods, first - 1))
  dropped = redis.call("HDEL", KEYS[2], unpack(ARGV, 2 + goods, first - 1))
end
local at, n, records, deadlines = 0, 0, {}, {}
for i = 1, goods do
  local due = holds[i] and string.format("%.6f", time + holds[i])
  for _ = 1, tonumber(ARGV[1 + i]) do
    at = at + 1
    local rest = string.match(known[at] or "", QUEUED)
    if rest then
      n = n + 1
      local id = ARGV[first + at - 1]
      records[2 * n - 1], records[2 * n] = id, "PERSISTED" .. rest
      if due then
        deadlines[#deadlines + 1], deadlines[#deadlines + 2] = due, id
      end
    end
  end
end
if n > 0 then
  redis.call("HSET", KEYS[3], unpack(records))
end
if #deadlines > 0 then
  redis.call("ZADD", KEYS[4], unpack(deadlines))
end
return { dropped, string.format("%.6f", time) }
