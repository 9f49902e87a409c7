-- adopt: bring orders that an external program pushed into the ledger; orders of ours are recognised and left alone.
--
-- KEYS[1]   meta    hash     state, seq, epoch
-- KEYS[2]   orders  hash     the ledger
-- KEYS[3..]         groups   per item: stock, buyers
-- ARGV[1]   state   QUEUED, or DEAD: of what is adopted
-- ARGV[2]   epoch   integer  of the rebuild that asks, for which the sale is not closed; else empty
-- ARGV[3..]         groups   per order: number of the item's group, item id, order id, quantity, buyer id, most units that
--                            come from the untracked ones; empty: all of its own, or none
--
-- Returns code and state of each order, one after the other; states only for 1 and 2
--    1  adopted: in that state from the untracked units or by deducting, REJECTED when sold out
--    2  in the ledger already
--   -1  unknown item
--   -2  corrupt item or record
--   -5  unknown while the sale is closed, or ledger or buyers lost, until a rebuild, that may bring it back
--   -7  the order id has other content

-- include: number
-- include: goods
-- include: record
-- include: commit
-- include: lost
local FIELDS = 6
local meta = redis.call("HMGET", KEYS[1], "seq", "state", "epoch")
local seq = sequence(meta[1])
local all, ids = gather(3, 2, seq), {}
local closed = (meta[2] == "closed" and meta[3] ~= ARGV[2]) or lost(meta[2], seq, all)
for at = 3, #ARGV, FIELDS do
  ids[#ids + 1] = ARGV[at + 2]
  ask(all[tonumber(ARGV[at])], at + 4, at + 4)
end
recall(all)

local known, fresh, records, answers = redis.call("HMGET", KEYS[2], unpack(ids)), {}, {}, {}
for i, id in ipairs(ids) do
  local at = 3 + (i - 1) * FIELDS
  local goods, name, quantity, buyer = all[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 3], ARGV[at + 4]
  local code, state, current = nil, "", fresh[id] or known[i]
  if current then
    code, state = compare(current, quantity, name, buyer)
  elseif closed then
    code = -5
  elseif goods.code or goods.held[buyer] == "corrupt" then
    code = goods.code or -2
  else
    local units, untracked, most = integer(quantity), goods.booked - goods.ledger, ARGV[at + 5]
    local taken = math.min(untracked, most == "" and units or integer(most))
    taken = most == "" and taken < units and 0 or taken
    code, state, seq = 1, ARGV[1], seq + 1
    if taken == units or goods.booked + units - taken <= goods.total then
      goods.booked = goods.booked + units - taken
    else
      state = "REJECTED"
    end
    if state ~= "REJECTED" then
      goods.ledger = goods.ledger + units
      hold(goods, buyer, units)
    end
    fresh[id] = record(state, quantity, goods.cap and state ~= "REJECTED" and "2" or "0", name, show(seq), buyer)
    records[#records + 1], records[#records + 2] = id, fresh[id]
  end
  answers[#answers + 1], answers[#answers + 2] = code, state or ""
end
if #records > 0 then
  commit(seq, all, records)
end
return answers
