-- read(stock): the stock hash of one goods as a table; code is -1 when unknown, -2 when corrupt.
local function read(stock)
  local values = redis.pcall("HMGET", stock, "Total", "Booked", "Ledger", "opens_at", "closes_at", "per_buyer")
  if values.err then
    return { code = -2, total = 0, booked = 0, ledger = 0 }
  end
  if not values[1] and not values[2] then
    return { code = -1, total = 0, booked = 0, ledger = 0 }
  end
  local goods = {
    total = integer(values[1]),
    booked = integer(values[2]),
    ledger = integer(values[3] or "0"),
    opens_at = values[4],
    closes_at = values[5],
    cap = values[6] and integer(values[6]),
    held = {},
  }
  if not goods.total or not goods.booked or not goods.ledger or (values[6] and not goods.cap) then
    return { code = -2, total = 0, booked = 0, ledger = 0 }
  end
  return goods
end

-- recall(goods, buyers, ids): fill goods.held with the units that these buyers of capped goods hold.
local function recall(goods, buyers, ids)
  local held = redis.pcall("HMGET", buyers, unpack(ids))
  if held.err then
    goods.code = -2
    return
  end
  for i, id in ipairs(ids) do
    goods.held[id] = integer(held[i] or "0") or "corrupt"
  end
end

-- book(goods, stock, buyers): write the units of one goods and of its buyers.
local function book(goods, stock, buyers)
  redis.call("HSET", stock, "Booked", show(goods.booked), "Ledger", show(goods.ledger))
  local fields = {}
  for id in pairs(goods.touched or {}) do
    fields[#fields + 1] = id
    fields[#fields + 1] = show(goods.held[id])
  end
  if #fields > 0 then
    redis.call("HSET", buyers, unpack(fields))
  end
end
