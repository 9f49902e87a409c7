-- claim: lease elements to one worker: refused ones whose delay is over, then from the right of the list.
--
-- What lost its lease may have killed its worker. So it goes to the back: it comes when nothing else waits, or when all
-- has been claimed that waited when it was first passed over (`turn`); without others, and half of what was claimed
-- together, so that the one to blame is soon alone.
--
-- A basket is claimed whole, and as one: it is alone when nothing else is claimed with it.
--
-- KEYS[1]  meta        hash        layout; deliveries: a counter; turn: its value from which lost elements come first
-- KEYS[2]  order_list  list        JSON orders
-- KEYS[3]  wakeup      list        wakes a waiting worker
-- KEYS[4]  leases      sorted set  delivery, or a claim's name -> lease end
-- KEYS[5]  claimed     hash        delivery -> attempts|lease|body; a claim's name -> bodies, see claims.lua
-- ARGV[1]  limit       integer     most elements, but for a basket
-- ARGV[2]  lease       number      seconds
--
-- Returns {again, before, bodies, name}: delivery, lease, attempts and body of each element claimed before, or claimed
-- alone, one after the other; the bodies of the others, whose delivery and lease are before + 1, before + 2, ..., and the
-- name of their claim, empty when each has a lease of its own

-- include: number
-- include: layout
-- include: clock
-- include: queue
-- include: basket
-- include: claims

local limit, time = tonumber(ARGV[1]), now()
local until_ = string.format("%.6f", time + tonumber(ARGV[2]))
local counted, turn = unpack(redis.call("HMGET", KEYS[1], "deliveries", "turn"))
if not counted and redis.call("HLEN", KEYS[5]) > 0 then -- meta was lost: no number may stand in `claimed` already
  counted = show(math.floor(time) * 1e4) -- below ALONE
end
local last = integer(counted or "0")
if not last or last >= ALONE then
  return redis.error_reply("WRONGTYPE meta deliveries is not an integer")
end
local waiting, wakeups = redis.call("LLEN", KEYS[2]), redis.call("LLEN", KEYS[3])
local leaseless = redis.call("HLEN", KEYS[5]) > redis.call("ZCARD", KEYS[4])
local function ended()
  return redis.call("ZRANGEBYSCORE", KEYS[4], "-inf", string.format("%.6f", time), "LIMIT", 0, limit)
end
local due, parts, odd = ended(), 0, {}
for _, name in ipairs(due) do
  if numbers(name) and parts < limit then
    local count = split(KEYS[4], KEYS[5], name)
    parts, odd[name] = parts + count, count == 0
  end
end

local freed, own, lost = {}, {}, {}
for _, delivery in ipairs(parts > 0 and ended() or due) do
  if odd[delivery] or not numbers(delivery) then -- else a later call splits it
    local found = element(KEYS[4], KEYS[5], delivery)
    local group = found and (found.refused and own or lost) or freed
    group[#group + 1] = found or delivery
  end
end
own = joined(whole(KEYS[4], KEYS[5], own, time), limit)
local fresh = limit - #own
if #lost > 0 and (#own + waiting == 0 or last >= (integer(turn) or last + 1)) then
  local together = 1 -- claimed in one call, so their leases end at the same moment
  while together < #lost and lost[together + 1].ends == lost[1].ends do
    together = together + 1
  end
  local groups = whole(KEYS[4], KEYS[5], { unpack(lost, 1, together) }, time)
  if #groups > 0 then
    own, fresh = joined(groups, math.floor(together / 2)), 0
  end
end
local taken = {}
for _, each in ipairs(own) do
  freed[#freed + 1], taken[#taken + 1] = each.delivery, each.body
end
fresh = fresh > 0 and uncut(KEYS[2], fresh) or 0

if #freed > 0 then
  redis.call("ZREM", KEYS[4], unpack(freed)) -- the first write frees memory, so that a full Redis still drains
end
local bodies = popped(KEYS[2], fresh, waiting)
for _, body in ipairs(bodies) do
  taken[#taken + 1] = body
end
local alone = is_one(taken)
if alone then
  for _, body in ipairs(bodies) do
    own[#own + 1] = { delivery = show(last + #own + 1), attempts = 1, alone = 0, body = body }
  end
  bodies = {}
end
local again, fields, deliveries = {}, {}, {}
local function keep(delivery, attempts, lease, body)
  deliveries[#deliveries + 1] = delivery
  fields[#fields + 1], fields[#fields + 2] = delivery, attempts .. "|" .. lease .. "|" .. body
end
for _, each in ipairs(own) do
  last = last + 1
  local attempts, lease = show(each.attempts), show(math.min(9, each.alone + (alone and 1 or 0)) * ALONE + last)
  local at = #again
  again[at + 1], again[at + 2], again[at + 3], again[at + 4] = each.delivery, lease, attempts, each.body
  keep(each.delivery, attempts, lease, each.body)
end
local before, digits, name = show(last), counter(last), ""
local text = layout == "2" and lines(bodies)
if text then
  name = show(last + 1) .. "+" .. #bodies
  deliveries[#deliveries + 1] = name
  fields[#fields + 1], fields[#fields + 2] = name, text
else
  for _, body in ipairs(bodies) do
    local delivery = digits()
    keep(delivery, "1", delivery, body)
  end
end
local n = #deliveries
if n > 0 then
  local scores = {}
  for i = 1, n do -- the last first: a short sorted set is searched from its low end for each
    scores[2 * i - 1], scores[2 * i] = until_, deliveries[n + 1 - i]
  end
  redis.call("HSET", KEYS[5], unpack(fields))
  redis.call("ZADD", KEYS[4], unpack(scores))
  redis.call("HSET", KEYS[1], "deliveries", show(last + #bodies))
  if #lost > 0 and not integer(turn) then
    redis.call("HSET", KEYS[1], "turn", show(last + #bodies + redis.call("LLEN", KEYS[2])))
  end
  if redis.call("LLEN", KEYS[2]) > 0 then
    wake(KEYS[3], wakeups)
  end
end
if turn and #lost == 0 then
  redis.call("HDEL", KEYS[1], "turn")
end
if leaseless then -- the key of the leases was lost: whoever still works on these has one more lease
  redis.call("ZREM", KEYS[4], "") -- frees memory first, as above
  local page = { "0" }
  repeat
    page = redis.call("HSCAN", KEYS[5], page[1], "COUNT", 500)
    for i = 1, #page[2], 2 do
      redis.call("ZADD", KEYS[4], "NX", until_, page[2][i])
    end
  until page[1] == "0"
end
return { again, before, bodies, name }
