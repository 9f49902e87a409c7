-- notice: close a sale that has lost what only a rebuild brings back: its ledger, or meta. Lost names of items return.
--
-- KEYS[1]   meta    hash    layout, state, seq
-- KEYS[2]   orders  hash    the ledger
-- KEYS[3]   goods   set     item ids of the sale
-- KEYS[4..]         groups  per item that were loaded once: stock, buyers
-- ARGV[1..]         strings  their ids
--
-- Returns {what is lost: orders, meta, or nothing; the state that stands}, then ids of the item whose buyers are lost

-- include: number
-- include: layout
-- include: lost
local meta, answers = redis.call("HMGET", KEYS[1], "state", "seq"), { "", "" }
local seq, all, present = sequence(meta[2]), {}, {}
for key = 4, #KEYS, 2 do
  local id, stock = ARGV[(key - 2) / 2], redis.pcall("HMGET", KEYS[key], "Total", "Ledger", "counted")
  present[#present + 1] = stock[1] and id
  all[#all + 1] = { ours = stock[2], ledger = integer(stock[2]) or 0 }
  answers[#answers + 1] = stock[3] and redis.call("EXISTS", KEYS[key + 1]) == 0 and id or nil
end
if meta[1] ~= "closed" and lost(meta[1], seq, all) then
  answers[1], meta[1] = seq == 0 and "meta" or "orders", "closed"
  redis.call("HSET", KEYS[1], "state", "closed")
end
if #present > 0 then
  redis.pcall("SADD", KEYS[3], unpack(present)) -- of another type, it stops no other item; the audit names it
end
answers[2] = meta[1] or "open"
return answers
