-- basket(body): the id of the basket that an element belongs to, by the order id that a basket gives; else nil.
local function basket(body)
  return string.match(body or "", '^{"created_at":[%d.]+,"order_id":"(.-)#%d%d?","goods_id":')
end

local MOST = 50 -- orders of a basket

-- uncut(list, count): how many elements to take from the right of the list so that no basket is cut: at most `count`,
-- but for a basket that is longer.
local function uncut(list, count)
  local function cuts(taken)
    local pair = redis.call("LRANGE", list, -taken - 1, -taken)
    local name = #pair == 2 and basket(pair[2])
    return name and name == basket(pair[1])
  end
  local less, more = count, count
  while less > 0 and less > count - MOST and cuts(less) do
    less = less - 1
  end
  if less > 0 then
    return less > count - MOST and less or count
  end
  while more < count + MOST and cuts(more) do
    more = more + 1
  end
  return more
end

-- element(claimed, delivery, score): what is claimed under a delivery, as {delivery, attempts, alone, body, score,
-- refused}; nil when that is nothing, or not ours.
local function element(claimed, delivery, score, unit)
  local attempts, lease, body = string.match(redis.call("HGET", claimed, delivery) or "", "^(%d+)|(%d+)|(.*)$")
  if attempts and string.find(delivery, "^%d+$") then
    local refused = tonumber(lease) == 0
    attempts = math.min(tonumber(attempts), 1000) + (refused and 1 or 0)
    return { delivery, attempts, math.floor(tonumber(lease) / unit), body, score, refused }
  end
end

-- whole(leases, claimed, elements, time, unit): groups of elements, each one by itself or a basket with all that is
-- claimed of it: its deliveries are numbered one after the other. A basket of which something is still leased, or
-- delayed, is left out.
local function whole(leases, claimed, elements, time, unit)
  local groups, seen = {}, {}
  for _, first in ipairs(elements) do
    local name = basket(first[4])
    if not name then
      groups[#groups + 1] = { first }
    elseif not seen[name] then
      seen[name] = true
      local group, free, at = {}, true, tonumber(first[1])
      local low = at
      while low > at - MOST and basket((element(claimed, show(low - 1), "", unit) or {})[4]) == name do
        low = low - 1
      end
      while #group < MOST do
        local delivery = show(low + #group)
        local score = redis.call("ZSCORE", leases, delivery)
        local member = element(claimed, delivery, score, unit)
        if not member or basket(member[4]) ~= name then
          break
        end
        free = free and score and tonumber(score) <= time
        group[#group + 1] = member
      end
      groups[#groups + 1] = free and group or nil
    end
  end
  return groups
end

-- joined(groups, most): the elements of the first groups: of one, and of more while there are no more than `most`.
local function joined(groups, most)
  local elements = {}
  for i, group in ipairs(groups) do
    if i > 1 and #elements + #group > most then
      break
    end
    for _, each in ipairs(group) do
      elements[#elements + 1] = each
    end
  end
  return elements
end

-- is_one(elements, bodies): true for one element, or for one basket.
local function is_one(elements, bodies)
  local name = basket(elements[1] and elements[1][4] or bodies[1])
  for _, each in ipairs(elements) do
    name = name == basket(each[4]) and name or nil
  end
  for _, body in ipairs(bodies) do
    name = name == basket(body) and name or nil
  end
  return name ~= nil or #elements + #bodies == 1
end
