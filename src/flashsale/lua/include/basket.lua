-- basket(body): the id of the basket that an element belongs to, by the order id that a basket gives; else nil.
local function basket(body)
  return string.match(body or "", '^{"created_at":[%d.]+,"order_id":"(.-)#%d%d?","goods_id":')
end

local MOST = 50 -- orders of a basket
local ALONE = 100000000000000 -- a lease is a number of the counter, and this for each time that it was claimed alone

-- uncut(list, count): how many elements to take from the right of the list so that no basket is cut: at most `count`,
-- but for a basket that is longer.
local function uncut(list, count)
  local function cuts(taken)
    local last = basket(redis.call("LINDEX", list, -taken)) -- Redis 6.2 looks for a range from the far end
    return last and basket(redis.call("LINDEX", list, -taken - 1)) == last
  end
  for less = count, math.max(1, count - MOST), -1 do
    if not cuts(less) then
      return less
    end
  end
  for more = count + 1, count + MOST do
    if not cuts(more) then
      return more
    end
  end
  return count
end

-- popped(list, count, length): so many elements from the right of a list of this length. Redis 6.2 looks for several from
-- the left end; where that is far away, one by one is faster.
local FAR = 400 -- elements of the list, for each that is taken
local function popped(list, count, length)
  if count > 0 and length < FAR * count then
    return redis.call("RPOP", list, count) or {}
  end
  local bodies = {}
  for i = 1, count do
    bodies[i] = redis.call("RPOP", list)
  end
  return bodies
end

-- element(leases, claimed, delivery): what is claimed under a delivery; nil when that is nothing, or not ours.
local function element(leases, claimed, delivery)
  local attempts, lease, body = string.match(redis.call("HGET", claimed, delivery) or "", "^(%d+)|(%d+)|(.*)$")
  if attempts and string.find(delivery, "^%d+$") then
    local refused = tonumber(lease) == 0
    return {
      delivery = delivery,
      refused = refused,
      attempts = math.min(tonumber(attempts), 1000) + (refused and 1 or 0),
      alone = math.floor(tonumber(lease) / ALONE),
      body = body,
      ends = redis.call("ZSCORE", leases, delivery),
    }
  end
end

-- whole(leases, claimed, elements, time): the elements in groups: one by itself, or a basket with all that is claimed of
-- it, numbered one after the other. A basket of which something is still leased, or delayed, is left out.
local function whole(leases, claimed, elements, time)
  local groups, seen = {}, {}
  for _, first in ipairs(elements) do
    local name = basket(first.body)
    if not name then
      groups[#groups + 1] = { first }
    elseif not seen[name] then
      local function member(number)
        local found = element(leases, claimed, show(number))
        return found and basket(found.body) == name and found
      end
      local low, group, free = tonumber(first.delivery), {}, true
      while low > first.delivery - MOST and member(low - 1) do
        low = low - 1
      end
      local each = member(low)
      while each and #group < MOST do
        free = free and each.ends and tonumber(each.ends) <= time
        group[#group + 1] = each
        each = member(low + #group)
      end
      seen[name] = true
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

-- is_one(bodies): true for one element, or for one basket.
local function is_one(bodies)
  for i = 2, #bodies do
    if not basket(bodies[i]) or basket(bodies[i]) ~= basket(bodies[1]) then
      return false
    end
  end
  return #bodies > 0
end
