-- bury: put elements among the dead letters; their orders are DEAD and keep their units. Only the holder may.
--
-- An element that only uses the id of an order in the ledger, with other content, does not touch that order.
--
-- KEYS[1]   leases   sorted set  delivery, or a claim's name -> lease end
-- KEYS[2]   claimed  hash        delivery -> attempts|lease|body; a claim's name -> bodies, see claims.lua
-- KEYS[3]   dead     hash        order id (or a blank and the delivery) -> attempts|lease|body
-- KEYS[4]   orders   hash        the ledger
-- ARGV[1]   parts    integer     claims that the elements are of
-- ARGV[2..]          strings     names of the claims; then per element: delivery, lease, order id or "", quantity|item|buyer
--
-- Returns how many were buried

-- include: number
-- include: record
-- include: claims
redis.call("ZCARD", KEYS[1])
redis.call("HLEN", KEYS[3])
redis.call("HLEN", KEYS[4])
local buried, first = 0, 2 + tonumber(ARGV[1])
for at = 2, first - 1 do
  split(KEYS[1], KEYS[2], ARGV[at])
end
for at = first, #ARGV, 4 do
  local delivery, id = ARGV[at], ARGV[at + 2]
  local entry = redis.call("HGET", KEYS[2], delivery) or ""
  if string.match(entry, "^%d+|(%d+)|") == ARGV[at + 1] then
    redis.call("ZREM", KEYS[1], delivery)
    redis.call("HDEL", KEYS[2], delivery)
    local state, quantity, gated, of, seq, buyer = parse(id ~= "" and redis.call("HGET", KEYS[4], id) or "")
    local own = state == "QUEUED" and table.concat({ quantity, of, buyer }, "|") == ARGV[at + 3]
    redis.call("HSET", KEYS[3], own and id or " " .. delivery, entry)
    if own then
      redis.call("HSET", KEYS[4], id, record("DEAD", quantity, gated, of, seq, buyer))
    end
    buried = buried + 1
  end
end
return buried
