-- Elements that come from the list in one claim share one lease, and one text in which each body is a line: layout 2.
-- Both are found by the claim's name, first+count: the number of its first delivery, and how many there are. They are
-- never changed: what is asked of a part of a claim splits it, so that each of its elements has its own, as in layout 1.

-- numbers(name): the first delivery of a claim, and how many it has; nil when this is no such name.
local function numbers(name)
  local first, count = string.match(name, "^(%d+)%+(%d+)$")
  return tonumber(first), tonumber(count)
end

-- split(leases, claimed, name, gone): gives each element of a claim its own lease and body, unless `gone` has its
-- delivery; returns how many it had, 0 when there is no such claim, and how many of these are gone.
local function split(leases, claimed, name, gone)
  local first, text = numbers(name), redis.call("HGET", claimed, name)
  local ends = redis.call("ZSCORE", leases, name)
  if not first or not text then
    return 0, 0
  end
  redis.call("HDEL", claimed, name) -- the first write frees memory
  redis.call("ZREM", leases, name)
  local at, fields, scores = 0, {}, {}
  local digits = counter(first - 1)
  for body in string.gmatch(text .. "\n", "([^\n]*)\n") do
    local delivery = digits()
    at = at + 1
    if not (gone and gone[delivery]) then
      fields[#fields + 1], fields[#fields + 2] = delivery, "1|" .. delivery .. "|" .. body
      scores[#scores + 1], scores[#scores + 2] = ends, delivery
    end
  end
  for from = 1, #fields, 2000 do
    local to = math.min(from + 1999, #fields)
    redis.call("HSET", claimed, unpack(fields, from, to))
    if ends then -- else the key of the leases was lost
      redis.call("ZADD", leases, unpack(scores, from, to))
    end
  end
  return at, at - #fields / 2
end
