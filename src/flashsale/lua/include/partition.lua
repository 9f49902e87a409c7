-- partition(first): the units of one item in one partition, whose keys stock, transfers, count and access start at
-- KEYS[first]; code is -1 when unknown, -2 when corrupt. left: units that nobody has booked, and no ticket promises.
local function partition(first)
  local goods = read(KEYS[first])
  local count, access = integer(redis.call("GET", KEYS[first + 2]) or "0"), integer(redis.call("GET", KEYS[first + 3]) or "0")
  redis.call("HLEN", KEYS[first + 1]) -- a wrong type fails here, before the first write
  goods.code = goods.code or not (count and access) and -2 or nil
  if not goods.code then
    goods.left = math.min(goods.total - goods.booked, count - access)
  end
  return goods
end

-- add(goods, first, units): give an item more units, or take some away, at stock and gate.
local function add(goods, first, units)
  redis.call("HSET", KEYS[first], "Total", show(goods.total + units))
  redis.call("INCRBY", KEYS[first + 2], show(units))
  redis.call("HINCRBY", KEYS[first + 1], "moves", "1")
end

-- fenced(epoch): the code where a step of another epoch, or during a rebuild, is refused: -8 or -5. KEYS[1] is meta.
local function fenced(epoch)
  local meta = redis.call("HMGET", KEYS[1], "epoch", "state")
  if meta[1] ~= epoch then
    return -8
  end
  return meta[2] == "closed" and -5 or nil
end

-- sent(text): seq and units of the last transfer to a partition, both strings; nil when corrupt.
local function sent(text)
  local seq, units = string.match(text or "0 0", "^(%d+) (%d+)$")
  if integer(seq) and integer(units) then
    return seq, units
  end
end
