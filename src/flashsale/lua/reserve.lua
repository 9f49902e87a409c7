-- reserve: book a batch of orders, each once: ledger, window, cap, stock; deduct, record, enqueue.
--
-- KEYS[1]   meta        hash     layout, state, seq
-- KEYS[2]   orders      hash     the ledger
-- KEYS[3]   order_list  list     JSON orders
-- KEYS[4]   wakeup      list     wakes a waiting worker
-- KEYS[5..]             groups   per item: stock, buyers; with the slot "take" also count, start, access, window
-- ARGV[1]   together    0/1      1: all or nothing
-- ARGV[2]   slot        string   none; held: taken at another Redis, or by a ticket; take: the gate is here, ask it
-- ARGV[3]   count       integer  orders
-- ARGV[4..]             groups   order ids; then their buyers; then per run of equal orders: request and body, see there
--
-- Returns code and units left of each order, one after the other; then the state of each order with code 2
--    1  accepted, QUEUED
--    2  accepted before, with the same content
--    0  sold out
--   -1  unknown item
--   -2  corrupt item or record
--   -3  not started
--   -4  ended
--   -5  paused, or closed: the ledger, or what the buyers hold, is lost
--   -6  the buyer holds as many as allowed
--   -7  the order id has other content
--  -10  would be accepted, but another order of the batch is not, or was before

-- include: number
-- include: layout
-- include: clock
-- include: window
-- include: goods
-- include: gate
-- include: record
-- include: commit
-- include: lost
-- include: queue
-- include: request
-- include: batch
local together, slot, count = ARGV[1] == "1", ARGV[2], tonumber(ARGV[3])
local time, meta, wakeups = now(), redis.call("HMGET", KEYS[1], "state", "seq"), redis.call("LLEN", KEYS[4])
local seq, opening, width, runs = sequence(meta[2]), stamp(time), slot == "take" and 6 or 2, 4 + 2 * count
redis.call("LLEN", KEYS[3]) -- a wrong type fails here, before the first write

local all = gather(5, width, seq)
offer(all, width, slot == "take", time, (meta[1] or "open") ~= "open" or lost(meta[1], seq, all))
understand_all(runs, count, all, slot, opening)

local known, fresh, records, bodies = redis.call("HMGET", KEYS[2], unpack(ARGV, 4, 3 + count)), {}, {}, {}
local i, accepted, whole, of, answers, replays = 0, 0, true, {}, {}, 2 * count
local tens, unit = decade(seq or 0)
for at = runs, #ARGV, 2 do
  local request, body = requests[ARGV[at]], ARGV[at + 1]
  local goods, units, left = request.goods, request.units, request.goods.left
  local refused, cap, held = goods.code or not units and -2 or nil, goods.cap, goods.held
  local opened, head, middle, tail = request.record, request.head, request.middle, request.tail
  for _ = 1, request.orders do
    i = i + 1
    local id, buyer = ARGV[3 + i], ARGV[3 + count + i]
    local current, code = known[i] or fresh[id], refused
    if current then
      code, answers[replays + 1] = compare(current, request.quantity, request.name, buyer)
      replays = replays + (code == 2 and 1 or 0)
    elseif code then -- the item sells nothing
    elseif cap and held[buyer] == "corrupt" then
      code = -2
    elseif cap and held[buyer] + units > cap then
      code = -6
    elseif units > left then
      code = 0
    else
      code, accepted, left, unit = 1, accepted + 1, left - units, unit + 1
      if cap then
        hold(goods, buyer, units)
      end
      if unit == 10 then
        tens, unit = decade(seq + accepted)
      end
      local text = opened .. tens .. unit .. "|" .. buyer
      fresh[id], records[2 * accepted - 1], records[2 * accepted] = text, id, text
      bodies[accepted] = body ~= "" and stamped(body, opening) or head .. id .. middle .. buyer .. tail
    end
    if together then
      whole, of[i] = whole and code > 0, goods
    end
    answers[2 * i - 1], answers[2 * i] = code, left
  end
  local sold = goods.left - left
  goods.booked, goods.ledger, goods.left = goods.booked + sold, goods.ledger + sold, left
end

whole = whole and (accepted == 0 or accepted == count) -- a basket of old and new orders was never asked before
if together and not whole then
  refuse(answers, of)
elseif accepted > 0 then
  commit(seq + accepted, all, records)
  admit_all(slot == "take" and all or {})
  redis.call("LPUSH", KEYS[3], unpack(bodies))
  wake(KEYS[4], wakeups)
end
return answers
