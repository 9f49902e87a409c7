-- reserve: book a batch of orders, each once: ledger, window, cap, stock; deduct, record, enqueue.
--
-- KEYS[1]   meta        hash     state, seq
-- KEYS[2]   orders      hash     the ledger
-- KEYS[3]   order_list  list     JSON orders
-- KEYS[4]   bell        list     wakes a waiting worker
-- KEYS[5..]             groups   per goods: stock, buyers; with ARGV[2] = 2 also count, start, access, window
-- ARGV[1]   together    0/1      1: all or nothing
-- ARGV[2]   gated       0/1/2    0: no slot; 1: a slot was taken at another Redis; 2: the gate is here, ask it
-- ARGV[3..]             groups   per order: number of the goods' group, goods id, order id, quantity, buyer id, body:
--                              a whole JSON object with its time, or one without time and opening brace
--
-- Returns code, units left and state of each order, one after the other; states only for 1 and 2
--    1  accepted
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
-- include: clock
-- include: goods
-- include: gate
-- include: record
local together, gated, FIELDS = ARGV[1] == "1", ARGV[2], 6
local width = gated == "2" and 6 or 2
local time, meta = now(), redis.call("HMGET", KEYS[1], "state", "seq")
local seq, rung = integer(meta[2] or "0"), redis.call("LLEN", KEYS[4])
redis.call("LLEN", KEYS[3]) -- a wrong type fails here, before the first write

local all, group = {}, {} -- the goods of the batch, in order and by their number as a string
for first = 5, #KEYS, width do
  local goods = read(KEYS[first])
  goods.left = math.max(0, goods.total - goods.booked)
  goods.code = goods.code or (not seq and -2) or nil
  if gated == "2" and not goods.code then
    goods.gate = look(time, first + 2)
    goods.code = goods.gate.code
    goods.left = math.min(goods.left, goods.gate.left)
  end
  goods.code = goods.code or shut(time, goods.opens_at, goods.closes_at, meta[1] and meta[1] ~= "open")
  goods.asked, goods.before, goods.sold, all[#all + 1] = {}, goods.left, 0, goods
  goods.flags, group[show(#all)] = show((gated == "0" and 0 or 1) + (goods.cap and 2 or 0)), goods
end

local ids, count = {}, 0
for at = 3, #ARGV, FIELDS do
  local goods = group[ARGV[at]]
  count = count + 1
  ids[count] = ARGV[at + 2]
  if goods.cap and not goods.code then
    goods.asked[#goods.asked + 1] = ARGV[at + 4]
  end
end
for i, goods in ipairs(all) do
  if #goods.asked > 0 then
    recall(goods, KEYS[5 + (i - 1) * width + 1], goods.asked)
  end
end

-- refuse(goods, units, buyer): nil when the order can be booked, else the code.
local function refuse(goods, units, buyer)
  if goods.code then
    return goods.code
  end
  if not units or units < 1 or units > 1000000 or goods.held[buyer] == "corrupt" then
    return -2
  end
  if goods.cap and goods.held[buyer] + units > goods.cap then
    return -6
  end
  if units > goods.left then
    return 0
  end
end

local known, fresh, records, bodies, answers = redis.call("HMGET", KEYS[2], unpack(ids)), {}, {}, {}, {}
local accepted, units_of, whole, again = 0, {}, true, 0
local format, byte, stamp = string.format, string.byte, string.format('{"created_at":%.6f,', time)
for i, id in ipairs(ids) do
  local at = 3 + (i - 1) * FIELDS
  local goods, name = group[ARGV[at]], ARGV[at + 1]
  local quantity, buyer, body = ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
  local code, state, standing = nil, "", fresh[id] or known[i]
  if standing then
    local now_state, booked, _, of, _, by = parse(standing)
    local same = now_state and booked == quantity and of == name and by == buyer
    code = same and 2 or (now_state and -7 or -2)
    state = same and now_state or ""
    again = again + 1
  else
    local units = units_of[quantity] or integer(quantity)
    units_of[quantity] = units
    code = refuse(goods, units, buyer)
    if not code then
      code, state, seq, accepted = 1, "QUEUED", seq + 1, accepted + 1
      goods.sold, goods.left = goods.sold + units, goods.left - units
      if goods.cap then
        goods.touched = goods.touched or {}
        goods.held[buyer], goods.touched[buyer] = goods.held[buyer] + units, true
      end
      local text = format(RECORD, state, quantity, goods.flags, name, seq, buyer)
      fresh[id], records[2 * accepted - 1], records[2 * accepted] = text, id, text
      bodies[accepted] = byte(body) == 123 and body or stamp .. body -- 123: an opening brace
    end
  end
  whole = whole and code > 0
  answers[3 * i - 2], answers[3 * i - 1], answers[3 * i] = code, goods.left, state
end

whole = whole and (again == 0 or again == count) -- a basket of old and new orders was never asked before
if together and not whole then
  for i = 1, count do
    local at = 3 * i - 2
    answers[at] = answers[at] == 1 and -10 or answers[at]
    answers[at + 1] = group[ARGV[3 + (i - 1) * FIELDS]].before
    answers[at + 2] = answers[at] == 2 and answers[at + 2] or ""
  end
  return answers
end
if accepted > 0 then
  redis.call("HSET", KEYS[1], "seq", show(seq))
  for i, goods in ipairs(all) do
    local first = 5 + (i - 1) * width
    if goods.sold > 0 then
      goods.booked, goods.ledger = goods.booked + goods.sold, goods.ledger + goods.sold
      book(goods, KEYS[first], KEYS[first + 1])
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
return answers
