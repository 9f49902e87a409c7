-- look: a whole sale at one moment, but for its gate; reads only.
--
-- KEYS[1]   meta        hash        state, epoch, layout, leader, leader_until
-- KEYS[2]   order_list  list        JSON orders
-- KEYS[3]   leases      sorted set  delivery, or a claim's name -> lease end
-- KEYS[4]   dead        hash        dead letters
-- KEYS[5]   holds       sorted set  order id -> payment deadline
-- KEYS[6]   processes   hash        name -> beat|since|what it tells
-- KEYS[7..]             hashes      stock of each item
--
-- Returns {time, state, epoch, layout, leader, leader_until, orders on the list, how the oldest begins, claimed orders,
-- dead letters, unpaid orders, processes, then of each item total, booked, per_buyer, opens_at, closes_at and hold};
-- empty: there is none, and 0 where a key is of another type

-- include: number
-- include: clock
-- include: claims
local function size(command, key)
  local found = redis.pcall(command, key)
  return type(found) == "table" and 0 or found
end
local claimed, leases = 0, redis.pcall("ZRANGEBYSCORE", KEYS[3], "-inf", "+inf")
for _, name in ipairs(leases) do
  local is_shared = string.find(name, "+", 1, true)
  claimed = claimed + (is_shared and select(2, numbers(name)) or 1)
end
local time = now()
local meta = redis.call("HMGET", KEYS[1], "state", "epoch", "layout", "leader", "leader_until")
local length = size("LLEN", KEYS[2])
local oldest = redis.pcall("LINDEX", KEYS[2], -1)
local processes = redis.pcall("HGETALL", KEYS[6])
local answer = {
  string.format("%.6f", time), meta[1] or "", meta[2] or "", meta[3] or "", meta[4] or "", meta[5] or "",
  length, type(oldest) == "string" and string.sub(oldest, 1, 60) or "",
  claimed, size("HLEN", KEYS[4]), size("ZCARD", KEYS[5]), processes.err and {} or processes,
}
for key = 7, #KEYS do
  local stock = redis.pcall("HMGET", KEYS[key], "Total", "Booked", "per_buyer", "opens_at", "closes_at", "hold")
  for field = 1, 6 do
    answer[#answer + 1] = stock[field] or ""
  end
end
return answer
