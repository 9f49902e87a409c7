-- The ledger's record of an order: state|quantity|gated|goods|seq|buyer. The buyer is last: it may hold a bar.

local function record(state, quantity, gated, goods, seq, buyer)
  return table.concat({ state, quantity, gated, goods, seq, buyer }, "|")
end

-- parse(text): state, quantity, gated, goods, seq, buyer, all strings; nil when corrupt.
local function parse(text)
  return string.match(text, "^(%u+)|([1-9]%d*)|([01])|([%w_.-]+)|(%d+)|(.+)$")
end
