-- share: hold a fair share of the outbox's slots, with every other outbox that runs.
--
-- KEYS[1]  meta    hash     layout; outbox: shared, or the token of one that does not share, of the release before;
--                           outbox_until: Redis TIME in seconds; outboxes: token and end of each lease;
--                           outbox_slots: the token of each slot
-- ARGV[1]  token   string   names this process
-- ARGV[2]  lease   number   seconds; 0 returns lease and slots
-- ARGV[3]  slots   integer  how many there are
-- ARGV[4]  busy    0|1      1: it handles an event; no slot is taken or given up
--
-- Returns a code for each slot
--    2  this one has it until its lease ends, and nobody else has had it since it last did
--    1  this one has it until its lease ends
--    0  another one has it, or nobody

-- include: number
-- include: layout
-- include: clock
local LONGEST = 60 -- seconds, twice what is asked for: a lease that ends later is of a clock that was set back
local time = now()
local function lasts(ends)
  return ends and time < ends and ends - time <= LONGEST
end

local token, lease, slots, busy = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == "1"
local values = redis.call("HMGET", KEYS[1], "outbox", "outbox_until", "outboxes", "outbox_slots")
local codes, owners = {}, {}
for slot = 1, slots do
  codes[slot] = 0
end
if values[1] and values[1] ~= "shared" and lasts(tonumber(values[2])) then
  return codes
end
if values[1] == "shared" then -- else one that does not share has acted since
  for name in string.gmatch(values[4] or "", "%S+") do
    owners[#owners + 1] = name
  end
end

local live, ends = {}, {}
for name, until_ in string.gmatch(values[3] or "", "(%S+) (%S+)") do
  if name ~= token and lasts(tonumber(until_)) then
    live[#live + 1] = name
    ends[name] = tonumber(until_)
  end
end
if lease > 0 then
  live[#live + 1] = token
  ends[token] = time + lease
end
table.sort(live)

local share, last, leases = 0, time, {}
for place, name in ipairs(live) do
  last = math.max(last, ends[name])
  leases[place] = string.format("%s %.6f", name, ends[name])
  if name == token then
    share = math.floor(place * slots / #live) - math.floor((place - 1) * slots / #live)
  end
end
for slot = 1, slots do
  owners[slot] = owners[slot] or "-"
  if owners[slot] == token then
    if busy or share > 0 then
      codes[slot] = 2
      share = share - 1
    else
      owners[slot] = "-"
    end
  end
end
for slot = 1, slots do
  if share > 0 and not busy and not ends[owners[slot]] then
    codes[slot] = 1
    owners[slot] = token
    share = share - 1
  end
end
redis.call("HSET", KEYS[1], "outbox", "shared", "outbox_until", string.format("%.6f", last),
  "outboxes", table.concat(leases, " "), "outbox_slots", table.concat(owners, " ", 1, slots))
return codes
