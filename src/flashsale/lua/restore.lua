-- restore: bring rows of the database into the ledger, when Redis does not know them or gave their units back wrongly.
--
-- It errs only upward: Booked may pass Total, and then nothing is left.
--
-- KEYS[1]   meta    hash        epoch, seq
-- KEYS[2]   orders  hash        the ledger
-- KEYS[3]   holds   sorted set  order id -> payment deadline
-- KEYS[4..]         groups      per item: stock, buyers
-- ARGV[1]   epoch   integer     of the database; another one is refused
-- ARGV[2..]         groups      per row: number of the item's group, item id, order id, quantity, buyer id, state
--
-- Returns a code for each row
--    1  recorded now; its units are booked if the state is active
--    0  known already, active or released as the row says
--   -1  unknown item
--   -2  corrupt
--   -5  the ledger, or what the buyers hold, is lost: only a rebuild, that empties it, brings rows back
--   -7  the ledger has other content for this order id
--   -8  another epoch

-- include: number
-- include: clock
-- include: goods
-- include: record
-- include: commit
-- include: lost
local FIELDS, ACTIVE = 6, { QUEUED = true, PERSISTED = true, CONFIRMED = true, DEAD = true }
local time, meta = now(), redis.call("HMGET", KEYS[1], "epoch", "seq", "state")
local seq, ids, answers = sequence(meta[2]), {}, {}
local all = gather(4, 2, seq)
redis.call("ZCARD", KEYS[3])
for _, goods in ipairs(all) do
  goods.hold = not goods.code and seconds(redis.call("HGET", goods.stock, "hold"))
end
for at = 2, #ARGV, FIELDS do
  ids[#ids + 1] = ARGV[at + 2]
  ask(all[tonumber(ARGV[at])], at + 4, at + 4)
end
local refused = meta[1] ~= ARGV[1] and -8 or lost(meta[3], seq, all) and -5 or nil -- half filled, a ledger would look alive
if refused then
  for i = 1, #ids do
    answers[i] = refused
  end
  return answers
end
recall(all)

local known, records, deadlines = redis.call("HMGET", KEYS[2], unpack(ids)), {}, {}
for i, id in ipairs(ids) do
  local at = 2 + (i - 1) * FIELDS
  local goods, name, quantity = all[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 3]
  local buyer, state = ARGV[at + 4], ARGV[at + 5]
  local current, booked, _, of, _, by = parse(known[i] or "")
  if known[i] and not current or goods.code or goods.held[buyer] == "corrupt" then
    answers[i] = goods.code or -2
  elseif current and (booked ~= quantity or of ~= name or by ~= buyer) then
    answers[i] = -7
  elseif current and (ACTIVE[current] or not ACTIVE[state]) then
    answers[i] = 0
  else
    local units, gated = integer(quantity), goods.cap and "3" or "1"
    answers[i], seq = 1, seq + 1
    records[#records + 1], records[#records + 2] = id, record(state, quantity, gated, name, show(seq), buyer)
    if ACTIVE[state] then
      goods.booked, goods.ledger = goods.booked + units, goods.ledger + units
      hold(goods, buyer, units)
      if state == "PERSISTED" and goods.hold then
        deadlines[#deadlines + 1], deadlines[#deadlines + 2] = string.format("%.6f", time + goods.hold), id
      end
    end
  end
end
if #records > 0 then
  commit(seq, all, records)
end
if #deadlines > 0 then
  redis.call("ZADD", KEYS[3], unpack(deadlines))
end
return answers
