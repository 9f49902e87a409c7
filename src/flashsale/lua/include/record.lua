-- The ledger's record of an order: state|quantity|gated|goods|seq|buyer. The buyer is last: it may hold a bar.
-- gated is a sum: 1 where the order holds a slot of the gate, 2 where it counts against its buyer's cap.
local function record(state, quantity, gated, goods, seq, buyer)
  return state .. "|" .. quantity .. "|" .. gated .. "|" .. goods .. "|" .. seq .. "|" .. buyer
end

-- parse(text): state, quantity, gated, item, seq, buyer, all strings; nil when corrupt.
local STATES = " QUEUED PERSISTED CONFIRMED CANCELLED EXPIRED REJECTED DEAD "
local function parse(text)
  local state, quantity, gated, goods, seq, buyer = string.match(text, "^(%u+)|([1-9]%d*)|([0-3])|([%w_.-]+)|(%d+)|([!-~]+)$")
  if state and #quantity <= 7 and #goods <= 64 and #seq <= 15 and #buyer <= 128 and string.find(STATES, " " .. state .. " ", 1, true) then
    return state, quantity, gated, goods, seq, buyer
  end
end

-- compare(text, quantity, goods, buyer): 2 and the state of a record with this content; else -7, or -2 when corrupt.
local function compare(text, quantity, goods, buyer)
  local state, booked, _, of, _, by = parse(text)
  if not state then
    return -2
  end
  if booked == quantity and of == goods and by == buyer then
    return 2, state
  end
  return -7
end
