-- ack: drop elements whose orders are committed, and mark the orders PERSISTED.
--
-- A commit is a fact, so no lease is asked for.
--
-- KEYS[1]   leases    sorted set  delivery -> lease end
-- KEYS[2]   claimed   hash        delivery -> attempts|lease|body
-- KEYS[3]   orders    hash        the ledger
-- KEYS[4]   holds     sorted set  order id -> payment deadline
-- KEYS[5..]           hashes      stock of each goods: hold
-- ARGV[1..]           groups      per element: delivery, order id or "", number of the goods' stock or 0
--
-- Returns how many elements were dropped

-- include: clock
-- include: record
local time, deliveries, ids, stocks = now(), {}, {}, {}
for at = 1, #ARGV, 3 do
  deliveries[#deliveries + 1] = ARGV[at]
  if ARGV[at + 1] ~= "" then
    ids[#ids + 1], stocks[#stocks + 1] = ARGV[at + 1], tonumber(ARGV[at + 2])
  end
end
redis.call("HLEN", KEYS[2])
redis.call("ZCARD", KEYS[4])
local known = #ids > 0 and redis.call("HMGET", KEYS[3], unpack(ids)) or {}
local holds = {}
for i = 5, #KEYS do
  local hold = redis.pcall("HGET", KEYS[i], "hold")
  holds[i - 4] = type(hold) == "string" and tonumber(hold)
end

redis.call("ZREM", KEYS[1], unpack(deliveries))
local dropped = redis.call("HDEL", KEYS[2], unpack(deliveries))
local records, deadlines = {}, {}
for i, id in ipairs(ids) do
  local state, quantity, gated, of, seq, buyer = parse(known[i] or "")
  if state == "QUEUED" then
    records[#records + 1], records[#records + 2] = id, record("PERSISTED", quantity, gated, of, seq, buyer)
    if holds[stocks[i]] then
      deadlines[#deadlines + 1], deadlines[#deadlines + 2] = string.format("%.6f", time + holds[stocks[i]]), id
    end
  end
end
if #records > 0 then
  redis.call("HSET", KEYS[3], unpack(records))
end
if #deadlines > 0 then
  redis.call("ZADD", KEYS[4], unpack(deadlines))
end
return dropped
