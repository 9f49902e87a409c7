-- reserve: book a batch of orders, each once: ledger, window, cap, stock; deduct, record, enqueue.
--
-- KEYS[1]   meta        hash     layout, state, seq
-- KEYS[2]   orders      hash     the ledger
-- KEYS[3]   order_list  list     JSON orders
-- KEYS[4]   bell        list     wakes a waiting worker
-- KEYS[5..]             groups   per goods: stock, buyers; with ARGV[2] = 2 also count, start, access, window
-- ARGV[1]   together    0/1      1: all or nothing
-- ARGV[2]   gated       0/1/2    0: no slot; 1: a slot was taken at another Redis; 2: the gate is here, ask it
-- ARGV[3..]             groups   per run of orders that wish for the same: wish, body, then order id and buyer id of each
--                              wish: number of the goods' group, orders, goods id and quantity, a blank between
--                              body: empty: no data, and nothing to escape; else JSON, that begins with its time if any
--
-- Returns code and units left of each order, one after the other; then the state of each order with code 2
--    1  accepted, QUEUED
--    2  accepted before, with the same content
--    0  sold out
--   -1  unknown goods
--   -2  corrupt goods or record
--   -3  not started
--   -4  ended
--   -5  paused
--   -6  the buyer holds as many as allowed
--   -7  the order id has other content
--  -10  would be accepted, but another order of the batch is not, or was before

-- include: number
-- include: layout
-- include: clock
-- include: goods
-- include: gate
-- include: record
local together, gated = ARGV[1] == "1", ARGV[2]
local width = gated == "2" and 6 or 2
local time, meta = now(), redis.call("HMGET", KEYS[1], "state", "seq")
local seq, rung = integer(meta[2] or "0"), redis.call("LLEN", KEYS[4])
redis.call("LLEN", KEYS[3]) -- a wrong type fails here, before the first write

local all = gather(5, width, seq)
for i, goods in ipairs(all) do
  goods.left = math.max(0, goods.total - goods.booked)
  if gated == "2" and not goods.code then
    goods.gate = look(time, 7 + (i - 1) * width)
    goods.code = goods.gate.code
    goods.left = math.min(goods.left, goods.gate.left)
  end
  goods.code = goods.code or shut(time, goods.opens_at, goods.closes_at, meta[1] and meta[1] ~= "open")
  goods.before, goods.sold = goods.left, 0
  goods.flags = show((gated == "0" and 0 or 1) + (goods.cap and 2 or 0))
end

-- What runs of the same wish share, made once; units is nil when the quantity is none.
local stamp, wishes = string.format('{"created_at":%.6f,', time), {}
local function understand(wish)
  local number, orders, name, quantity = string.match(wish, "^(%d+) (%d+) (%S+) (.*)$")
  local units = integer(quantity)
  wishes[wish] = { goods = all[tonumber(number)], orders = tonumber(orders), name = name, quantity = quantity,
    units = units and units >= 1 and units <= 1000000 and units or nil,
    record = table.concat({ "QUEUED", quantity, all[tonumber(number)].flags, name, "" }, "|"),
    head = stamp .. '"order_id":"',
    middle = '","goods_id":"' .. name .. '","buyer_id":"',
    tail = '","quantity":' .. quantity .. "}",
  }
  return wishes[wish]
end

local ids, buyers, chosen, given, count, at = {}, {}, {}, {}, 0, 3
while ARGV[at] do
  local wish, body = wishes[ARGV[at]] or understand(ARGV[at]), ARGV[at + 1]
  for place = at + 2, at + 2 * wish.orders, 2 do
    count = count + 1
    ids[count], buyers[count], chosen[count], given[count] = ARGV[place], ARGV[place + 1], wish, body
    ask(wish.goods, ARGV[place + 1])
  end
  at = at + 2 + 2 * wish.orders
end
for _, goods in ipairs(all) do
  recall(goods)
end

local known, fresh, records, bodies = redis.call("HMGET", KEYS[2], unpack(ids)), {}, {}, {}
local accepted, whole, answers, states, digits = 0, true, {}, {}, counter(seq or 0)
for i = 1, count do
  local id, buyer, wish, body = ids[i], buyers[i], chosen[i], given[i]
  local goods, units, code, standing = wish.goods, wish.units, nil, fresh[id] or known[i]
  if standing then
    code, states[#states + 1] = compare(standing, wish.quantity, wish.name, buyer)
  elseif goods.code then
    code = goods.code
  elseif not units or goods.held[buyer] == "corrupt" then
    code = -2
  elseif goods.cap and goods.held[buyer] + units > goods.cap then
    code = -6
  elseif units > goods.left then
    code = 0
  else
    code, accepted = 1, accepted + 1
    goods.sold, goods.left = goods.sold + units, goods.left - units
    hold(goods, buyer, units)
    local text = wish.record .. digits() .. "|" .. buyer
    fresh[id], records[2 * accepted - 1], records[2 * accepted] = text, id, text
    if body == "" then
      bodies[accepted] = wish.head .. id .. wish.middle .. buyer .. wish.tail
    else
      bodies[accepted] = string.find(body, '^{"created_at":') and body or stamp .. string.sub(body, 2)
    end
  end
  whole = whole and code > 0
  answers[2 * i - 1], answers[2 * i] = code, goods.left
end

whole = whole and (#states == 0 or #states == count) -- a basket of old and new orders was never asked before
if together and not whole then
  for i = 1, count do
    answers[2 * i - 1] = answers[2 * i - 1] == 1 and -10 or answers[2 * i - 1]
    answers[2 * i] = chosen[i].goods.before
  end
elseif accepted > 0 then
  redis.call("HSET", KEYS[1], "seq", show(seq + accepted))
  for _, goods in ipairs(all) do
    if goods.sold > 0 then
      goods.booked, goods.ledger = goods.booked + goods.sold, goods.ledger + goods.sold
      book(goods)
      if goods.gate then
        goods.gate.access = goods.gate.access + goods.sold
        admit(goods.gate)
      end
    end
  end
  redis.call("HSET", KEYS[2], unpack(records))
  redis.call("LPUSH", KEYS[3], unpack(bodies))
  if rung == 0 then
    redis.call("LPUSH", KEYS[4], "1")
  end
end
for i, state in ipairs(states) do
  answers[2 * count + i] = state
end
return answers
