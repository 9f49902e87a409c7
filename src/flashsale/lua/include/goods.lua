-- broken(code): an item that sells nothing.
local function broken(code)
  return { code = code, total = 0, booked = 0, ledger = 0, before = 0 }
end

-- read(stock, buyers): one item as a table, from the hash `stock`; code is -1 when unknown, -2 when corrupt.
-- buyers, the hash of what each buyer holds, is read by recall and written by book.
local function read(stock, buyers)
  local values = redis.pcall("HMGET", stock, "Total", "Booked", "Ledger", "opens_at", "closes_at", "per_buyer", "counted")
  if values.err then
    return broken(-2)
  end
  if not values[1] and not values[2] then
    return broken(-1)
  end
  local ledger = integer(values[3] or "0")
  local goods = {
    stock = stock,
    buyers = buyers,
    total = integer(values[1]),
    booked = integer(values[2]),
    ours = values[3], -- set when it is loaded, or has its first order
    ledger = ledger, -- units of orders
    before = ledger, -- the same, and stays what it was
    opens_at = values[4],
    closes_at = values[5],
    cap = values[6] and integer(values[6]),
    counted = values[7], -- set once units of buyers are counted: the hash of buyers exists since then
    asked = {}, -- buyers
    held = {}, -- units by buyer
    touched = {}, -- buyers whose units have changed
  }
  if not goods.total or not goods.booked or not goods.ledger or (values[6] and not goods.cap) then
    return broken(-2)
  end
  return goods
end

-- gather(first, width, seq): the items of a batch, whose groups of `width` keys start at KEYS[first] with stock and
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

-- ask(goods, first, last): have recall fetch what the buyers ARGV[first] to ARGV[last] hold.
local function ask(goods, first, last)
  for place = first, goods.cap and not goods.code and last or 0 do
    goods.asked[#goods.asked + 1] = ARGV[place]
  end
end

-- recall(all): fill `held` of capped items with the units that the asked buyers hold; code is -5 when the hash is lost.
local function recall(all)
  for _, goods in ipairs(all) do
    local units = not goods.code and #goods.asked > 0 and redis.pcall("HMGET", goods.buyers, unpack(goods.asked)) or {}
    local gone = #units > 0 and goods.counted and redis.call("EXISTS", goods.buyers) == 0
    goods.code = goods.code or (units.err and -2) or (gone and -5) or nil
    for i, found in ipairs(units) do
      goods.held[goods.asked[i]] = found and (integer(found) or "corrupt") or 0
    end
  end
end

-- hold(goods, buyer, units): count more units for a buyer of capped items.
local function hold(goods, buyer, units)
  if goods.cap then
    goods.held[buyer], goods.touched[#goods.touched + 1] = goods.held[buyer] + units, buyer
  end
end

-- spread(key, field): make a new hash a hash table, before `field` gets its value. Redis keeps a small hash as one list,
-- and searches it from the start for each field, until there are hundreds of them or one long value.
local LONG = string.rep("-", 100)
local function spread(key, field)
  redis.call("HSET", key, field, LONG)
end

-- book(goods): write the units of one item and of its buyers.
local function book(goods)
  redis.call("HSET", goods.stock, "Booked", show(goods.booked), "Ledger", show(goods.ledger))
  local fields, shown = {}, {}
  for i, id in ipairs(goods.touched) do
    local units = goods.held[id]
    shown[units] = shown[units] or show(units)
    fields[2 * i - 1], fields[2 * i] = id, shown[units]
  end
  if #fields > 0 then
    if not goods.counted then
      redis.call("HSET", goods.stock, "counted", "1")
      spread(goods.buyers, fields[1])
    end
    redis.call("HSET", goods.buyers, unpack(fields))
  end
end
