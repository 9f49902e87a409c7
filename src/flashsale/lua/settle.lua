-- settle: move orders to the states that the database has, each if a way leads there; a release gives its units back,
-- once; PERSISTED starts the payment deadline.
--
-- A way of several steps (QUEUED, PERSISTED, CONFIRMED) is one move: what a step on the way begins, the next one ends.
--
-- KEYS[1]  orders  hash        the ledger
-- KEYS[2]  holds   sorted set  order id -> payment deadline
-- KEYS[3..]        groups      per item: stock, buyers; with ARGV[1] = 1 also access
-- ARGV[1]  here    0/1         1: gate and stock share this Redis, and slots return in this script
-- ARGV[2]  gone    0/1         1: the dead letters of these orders were removed; 0: an order that is DEAD stays so
-- ARGV[3..]        groups      per order, each once: number of the item's group, item id, order id, state to move to
--
-- Returns code, current state, and units whose slot another Redis must give back, of each order, one after the other
--    1  moved
--    0  no way leads there from the current state
--   -1  the ledger does not know the order, or knows it with another item
--   -2  corrupt; nothing was changed

-- include: number
-- include: clock
-- include: goods
-- include: record
-- include: states
local FIELDS, here = 4, ARGV[1] == "1"
local width = here and 3 or 2
local ids, all = {}, {}
for at = 3, #ARGV, FIELDS do
  ids[#ids + 1] = ARGV[at + 2]
end
local known = redis.call("HMGET", KEYS[1], unpack(ids))
redis.call("ZCARD", KEYS[2]) -- a wrong type fails here, before the first write

-- group(number): the item of a group of keys, read when they are first asked for.
local function group(number)
  if not all[number] then
    local first = 3 + (number - 1) * width
    all[number] = read(KEYS[first], KEYS[first + 1])
    all[number].counter = here and KEYS[first + 2]
  end
  return all[number]
end

-- free(goods, units, flags, buyer): give an order's units back, with its slot and allowance if it has them; false, and
-- nothing changed, when a value is corrupt.
local function free(goods, units, flags, buyer)
  if goods.code or units > goods.booked or units > goods.ledger then
    return false
  end
  local slot, capped = goods.counter and flags % 2 == 1, flags > 1
  if slot and not goods.access then
    goods.access = integer(redis.pcall("GET", goods.counter) or "0") or "corrupt"
  end
  if capped and goods.held[buyer] == nil then
    local text = redis.pcall("HGET", goods.buyers, buyer)
    goods.held[buyer] = text and (integer(text) or "corrupt")
  end
  local held = capped and goods.held[buyer]
  if held == "corrupt" or (slot and goods.access == "corrupt") then
    return false
  end
  goods.booked, goods.ledger, goods.changed = goods.booked - units, goods.ledger - units, true
  if held then
    goods.held[buyer], goods.touched[#goods.touched + 1] = math.max(0, held - units), buyer
  end
  if slot then
    local back = math.min(goods.access, units)
    goods.access, goods.back = goods.access - back, (goods.back or 0) + back
  end
  return true
end

local answers, records, moved, deadlines = {}, {}, {}, {}
for i, id in ipairs(ids) do
  local at = 3 + (i - 1) * FIELDS
  local number, to, slots = tonumber(ARGV[at]), ARGV[at + 3], "0"
  local state, quantity, gated, of, seq, buyer = parse(known[i] or "")
  local code, flags = 1, tonumber(gated)
  if not known[i] or (state and of ~= ARGV[at + 1]) then
    code, state = -1, ""
  elseif not state then
    code, state = -2, ""
  elseif state == "DEAD" and ARGV[2] == "0" then
    code = 0
  elseif not string.find(AHEAD[state], " " .. to .. " ", 1, true) then
    code = 0
  elseif RELEASED[to] and not free(group(number), integer(quantity), flags, buyer) then
    code = -2
  else
    local hold = to == "PERSISTED" and redis.pcall("HGET", KEYS[3 + (number - 1) * width], "hold")
    if seconds(hold) then
      deadlines[#deadlines + 1], deadlines[#deadlines + 2] = string.format("%.6f", now() + seconds(hold)), id
    end
    if RELEASED[to] and not here and flags % 2 == 1 then
      slots = quantity
    end
    moved[#moved + 1], state = id, to
    records[#records + 1], records[#records + 2] = id, record(to, quantity, gated, of, seq, buyer)
  end
  answers[#answers + 1], answers[#answers + 2], answers[#answers + 3] = code, state, slots
end

if #moved > 0 then
  redis.call("ZREM", KEYS[2], unpack(moved))
  for _, goods in pairs(all) do
    if goods.changed then
      book(goods)
      local tracked = integer(redis.call("HGET", goods.stock, "tracked") or "")
      if tracked then -- in the midst of a rebuild
        redis.call("HSET", goods.stock, "tracked", show(math.max(0, tracked + goods.ledger - goods.before)))
      end
    end
    if (goods.back or 0) > 0 then
      redis.call("DECRBY", goods.counter, show(goods.back))
    end
  end
  redis.call("HSET", KEYS[1], unpack(records))
end
if #deadlines > 0 then
  redis.call("ZADD", KEYS[2], unpack(deadlines))
end
return answers
