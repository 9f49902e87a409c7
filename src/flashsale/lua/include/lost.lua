-- sequence(text): the sale's last order number, 0 before the first; nil when corrupt, or so high that its end is near.
local function sequence(text)
  local seq = integer(text or "0")
  return seq and seq < 9e14 and seq or nil
end

-- lost(state, seq, all): true when the ledger is lost, or meta with its number: they come with the first order, and go
-- together. When both are gone, the items tell: they are loaded after meta, and have units of orders only beside seq.
-- KEYS[1] is meta, KEYS[2] the ledger.
local function lost(state, seq, all)
  for _, goods in ipairs(seq == 0 and all or {}) do
    if goods.ours and (not state or goods.ledger > 0) then
      return true
    end
  end
  return seq ~= nil and (seq > 0) ~= (redis.call("EXISTS", KEYS[2]) == 1)
end
