-- settle: move one order to another state, if it may go there; a release gives its units back, once; PERSISTED starts
-- the payment deadline.
--
-- KEYS[1]  orders  hash        the ledger
-- KEYS[2]  holds   sorted set  order id -> payment deadline
-- KEYS[3]  stock   hash        Booked, Ledger, hold
-- KEYS[4]  buyers  hash        units held by each buyer
-- KEYS[5]  access  string      the gate's counter, named only where gate and stock share a Redis
-- ARGV[1]  order   string      order id
-- ARGV[2]  goods   string      goods id, as the caller read it from the ledger
-- ARGV[3]  state   string      where to
-- ARGV[4]  letter  0/1         1: the caller saw the order DEAD and has removed its letter; else a DEAD order stays
--
-- Returns {code, state that stands, quantity, gated}
--    1  moved
--    0  stands: it may not go there
--   -1  the ledger does not know the order, or these goods
--   -2  corrupt; nothing was changed

-- include: number
-- include: clock
-- include: goods
-- include: record
local NEXT = {
  QUEUED = "PERSISTED CANCELLED EXPIRED REJECTED DEAD",
  PERSISTED = "CONFIRMED CANCELLED EXPIRED",
  CONFIRMED = "CANCELLED",
  DEAD = "QUEUED CANCELLED",
}
local FREE = { CANCELLED = true, EXPIRED = true, REJECTED = true }

local id, to = ARGV[1], ARGV[3]
local text = redis.call("HGET", KEYS[1], id)
if not text then
  return { -1, "", "0", "0" }
end
local state, quantity, gated, of, seq, buyer = parse(text)
if not state then
  return { -2, "", "0", "0" }
end
local flags = tonumber(gated)
local slot = flags % 2
if of ~= ARGV[2] then
  return { -1, "", "0", "0" }
end
if state == "DEAD" and ARGV[4] ~= "1" then
  return { 0, state, quantity, show(slot) }
end
if not string.find(" " .. (NEXT[state] or "") .. " ", " " .. to .. " ", 1, true) then
  return { 0, state, quantity, show(slot) }
end
redis.call("ZSCORE", KEYS[2], id)
local hold = to == "PERSISTED" and redis.pcall("HGET", KEYS[3], "hold")
local goods, held, access = nil, nil, false
if FREE[to] then
  local units = integer(quantity)
  goods, held = read(KEYS[3], KEYS[4]), flags > 1 and redis.call("HGET", KEYS[4], buyer)
  if KEYS[5] and slot == 1 then
    access = integer(redis.call("GET", KEYS[5]) or "0")
  end
  if goods.code or units > goods.booked or units > goods.ledger or (held and not integer(held)) or access == nil then
    return { -2, state, quantity, show(slot) }
  end
  goods.booked, goods.ledger = goods.booked - units, goods.ledger - units
  if held then
    goods.held[buyer], goods.touched = math.max(0, integer(held) - units), { buyer }
  end
  access = access and math.min(access, units)
end
redis.call("ZREM", KEYS[2], id)
if goods then
  book(goods)
  if access and access > 0 then
    redis.call("DECRBY", KEYS[5], show(access))
  end
end
redis.call("HSET", KEYS[1], id, record(to, quantity, gated, of, seq, buyer))
if seconds(hold) then
  redis.call("ZADD", KEYS[2], string.format("%.6f", now() + seconds(hold)), id)
end
return { 1, to, quantity, show(slot) }
