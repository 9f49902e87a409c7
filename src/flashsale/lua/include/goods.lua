-- read(stock, buyers): one goods as a table, from the hash `stock`; code is -1 when unknown, -2 when corrupt.
-- buyers, the hash of what each buyer holds, is read by recall and written by book.
local function read(stock, buyers)
  local values = redis.pcall("HMGET", stock, "Total", "Booked", "Ledger", "opens_at", "closes_at", "per_buyer")
  if values.err then
    return { code = -2, total = 0, booked = 0, ledger = 0 }
  end
  if not values[1] and not values[2] then
    return { code = -1, total = 0, booked = 0, ledger = 0 }
  end
  local goods = {
    stock = stock,
    buyers = buyers,
    total = integer(values[1]),
    booked = integer(values[2]),
    ledger = integer(values[3] or "0"),
    opens_at = values[4],
    closes_at = values[5],
    cap = values[6] and integer(values[6]),
    asked = {}, -- buyers
    held = {}, -- units by buyer
    touched = {}, -- buyers whose units have changed
  }
  if not goods.total or not goods.booked or not goods.ledger or (values[6] and not goods.cap) then
    return { code = -2, total = 0, booked = 0, ledger = 0 }
  end
  return goods
end

-- gather(first, width, seq): the goods of a batch, whose groups of `width` keys start at KEYS[first] with stock and
-- buyers. Without the sequence number, that is no number, nothing can be recorded: all are corrupt.
local function gather(first, width, seq)
  local all = {}
  for key = first, #KEYS, width do
    local goods = read(KEYS[key], KEYS[key + 1])
    goods.code = goods.code or (not seq and -2) or nil
    all[#all + 1] = goods
  end
  return all
end

-- ask(goods, buyer): have recall fetch what this buyer holds.
local function ask(goods, buyer)
  if goods.cap and not goods.code then
    goods.asked[#goods.asked + 1] = buyer
  end
end

-- recall(goods): fill goods.held with the units that the buyers of capped goods hold.
local function recall(goods)
  if goods.code or #goods.asked == 0 then
    return
  end
  local units = redis.pcall("HMGET", goods.buyers, unpack(goods.asked))
  if units.err then
    goods.code = -2
    return
  end
  for i, id in ipairs(goods.asked) do
    goods.held[id] = units[i] and (integer(units[i]) or "corrupt") or 0
  end
end

-- hold(goods, buyer, units): count more units for a buyer of capped goods.
local function hold(goods, buyer, units)
  if goods.cap then
    goods.held[buyer], goods.touched[#goods.touched + 1] = goods.held[buyer] + units, buyer
  end
end

-- book(goods): write the units of one goods and of its buyers.
local function book(goods)
  redis.call("HSET", goods.stock, "Booked", show(goods.booked), "Ledger", show(goods.ledger))
  local fields, shown = {}, {}
  for i, id in ipairs(goods.touched) do
    local units = goods.held[id]
    shown[units] = shown[units] or show(units)
    fields[2 * i - 1], fields[2 * i] = id, shown[units]
  end
  if #fields > 0 then
    redis.call("HSET", goods.buyers, unpack(fields))
  end
end
