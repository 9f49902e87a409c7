-- deduct: take units of an item for each caller in turn, if that many are left (the article's script, hardened).
--
-- KEYS[1..]  stock  hash     per caller: Total, Booked
-- ARGV[1..]  units  integer  per caller: 1..1000000
--
-- Returns the units taken, for each caller; not as a list when there is one caller, as in the article. Or
--    0  sold out, or not a quantity
--   -1  unknown item
--   -2  Total or Booked is not a canonical integer

-- include: number
local function look(stock)
  local values = redis.pcall("HMGET", stock, "Total", "Booked")
  if values.err then
    return { code = -2 }
  end
  if not values[1] and not values[2] then
    return { code = -1 }
  end
  local total, booked = integer(values[1]), integer(values[2])
  return { code = not (total and booked) and -2 or nil, total = total, booked = booked, taken = 0 }
end

local stocks, answers = {}, {}
for caller, stock in ipairs(KEYS) do
  local units, goods = amount(ARGV[caller]), stocks[stock] or look(stock)
  stocks[stock], answers[caller] = goods, 0
  if units then
    if goods.code then
      answers[caller] = goods.code
    elseif goods.booked + goods.taken + units <= goods.total then
      goods.taken, answers[caller] = goods.taken + units, units
    end
  end
end
for stock, goods in pairs(stocks) do
  if not goods.code and goods.taken > 0 then
    redis.call("HINCRBY", stock, "Booked", show(goods.taken))
  end
end
return #KEYS == 1 and answers[1] or answers
