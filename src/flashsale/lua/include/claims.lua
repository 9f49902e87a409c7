-- Elements that come from the list in one claim share one lease, and one text in which each body is a line: layout 2.
-- Both are found by the claim's name, first+count: the number of its first delivery, and how many there are. They are
-- never changed: what is asked of a part of a claim splits it, so that each of its elements has its own, as in layout 1.

-- numbers(name): the first delivery of a claim, and how many it has; nil when this is no such name.
local function numbers(name)
  local first, count = string.match(name, "^([1-9]%d*)%+([1-9]%d*)$")
  first, count = integer(first), integer(count)
  if first and count then
    return first, count
  end
end

-- lines(bodies): the text of a claim; nil where each body must stay by itself: there is only one, one is of two lines, or
-- they are so long that to split them would keep Redis busy.
local LONGEST = 1048576
local function lines(bodies)
  local size = 0
  for _, body in ipairs(bodies) do
    size = size + #body
  end
  if #bodies > 1 and size <= LONGEST and not string.find(table.concat(bodies), "\n", 1, true) then
    return table.concat(bodies, "\n")
  end
end

-- split(leases, claimed, name, gone): gives each element of a claim its own lease and body, unless `gone` has its
-- delivery; returns how many it had, 0 when there is no such claim, or it is not ours, and how many of these are gone.
local function split(leases, claimed, name, gone)
  local first, count = numbers(name)
  local text, ends = first and redis.call("HGET", claimed, name), redis.call("ZSCORE", leases, name)
  if not text or select(2, string.gsub(text, "\n", "")) ~= count - 1 then
    return 0, 0
  end
  redis.call("HDEL", claimed, name) -- the first write frees memory
  redis.call("ZREM", leases, name)
  local fields, scores = {}, {}
  local digits = counter(first - 1)
  for body in string.gmatch(text .. "\n", "([^\n]*)\n") do
    local delivery = digits()
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
  return count, count - #fields / 2
end
