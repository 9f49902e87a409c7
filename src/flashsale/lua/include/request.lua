-- understand(text, all, slot, opening): what a run of equal orders asks for; `requests` keeps it for other runs with the
-- same text: the number of the item's group in `all`, how many orders, item id and quantity, a blank between. The body
-- that comes with it is empty where the orders have no data, and nothing to escape; else the JSON of the one order.
--   item, orders, name, quantity
--   units                nil when the quantity is none
--   record               an order's record in the ledger, as far as its sequence number
--   head, middle, tail   its JSON, around order id and buyer id; `opening` is the stamp that it begins with
local requests = {}
local function understand(text, all, slot, opening)
  local number, orders, name, quantity = string.match(text, "^(%d+) (%d+) (%S+) (.*)$")
  local goods = all[tonumber(number)]
  local gated = show((slot == "none" and 0 or 1) + (goods.cap and 2 or 0))
  requests[text] = {
    goods = goods, orders = tonumber(orders), name = name, quantity = quantity, units = amount(quantity),
    record = table.concat({ "QUEUED", quantity, gated, name, "" }, "|"),
    head = opening .. '"order_id":"',
    middle = '","goods_id":"' .. name .. '","buyer_id":"',
    tail = '","quantity":' .. quantity .. "}",
  }
  return requests[text]
end

-- understand_all(first, count, all, slot, opening): understand the runs, which start at ARGV[first], of `count` orders, and
-- fetch what their buyers hold.
local function understand_all(first, count, all, slot, opening)
  local last = 3 + count -- the buyers follow the order ids
  for at = first, #ARGV, 2 do
    local request = requests[ARGV[at]] or understand(ARGV[at], all, slot, opening)
    ask(request.goods, last + 1, last + request.orders)
    last = last + request.orders
  end
  recall(all)
end
