-- The ledger's record of an order: state|quantity|gated|goods|seq|buyer. The buyer is last: it may hold a bar.
-- gated is a sum: 1 where the order holds a slot of the gate, 2 where it counts against its buyer's cap.

local function record(state, quantity, gated, goods, seq, buyer)
  return table.concat({ state, quantity, gated, goods, seq, buyer }, "|")
end

-- parse(text): state, quantity, gated, goods, seq, buyer, all strings; nil when corrupt.
local function parse(text)
  return string.match(text, "^(%u+)|([1-9]%d*)|([0-3])|([%w_.-]+)|(%d+)|(.+)$")
end
