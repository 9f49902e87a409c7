-- ticket: let buyers pass as `enter` does; of an item with a cap, each has one live ticket at a time.
--
-- KEYS[1..]  gate      groups  per item: count, start, access, window, tickets
-- ARGV[1]    lifetime  number  seconds for which a new ticket lives
-- ARGV[2..]  runs      groups  per run, buyers in a row who ask for the same: number of the item's group, units, buyers,
--                              and a line for each: buyer id, order id, and the order id of a ticket that was used
--
-- Returns for each run, one after the other: code of the last buyer, buyers admitted, units left, and how many tickets
-- follow: none without a cap, or where neither tickets nor units are left; else for each buyer code, units left, and
-- order id, units and seconds of the ticket
--    1  admitted
--    2  has a ticket that lives; nothing has changed
--    0  sold out
--   -1  unknown item
--   -2  corrupt
--   -3  not started
--   -4  ended
--   -5  paused
--   -6  more than one buyer may have

-- include: number
-- include: clock
-- include: window
-- include: gate
local time, gates, answers = now(), {}, {}
for first = 1, #KEYS, 5 do
  local gate = read_gate(time, first)
  local cap = not gate.code and redis.call("HGET", KEYS[first + 3], "per_buyer")
  if cap then
    gate.tickets, gate.given, gate.fields = KEYS[first + 4], {}, {}
    gate.cap, gate.living = integer(cap), redis.pcall("HLEN", gate.tickets)
    gate.code = (not gate.cap or type(gate.living) == "table") and -2 or nil
  end
  gate.passed, gates[#gates + 1] = 0, gate
end

-- read(text): order id, units and seconds of a ticket; nil when it is none, or dead.
local function read(text)
  local ends, units, id = string.match(text, "^([%d.]+)|(%d+)|([!-~]+)$")
  if amount(units) and (seconds(ends) or 0) > time then
    return id, amount(units), string.format("%.6f", seconds(ends) - time)
  end
end

-- each(gate, units, lines): answers with the tickets of a run. (Not as a list in the list, which is two packets.)
local function each(gate, units, lines)
  local given, fields, left, cap = gate.given, gate.fields, gate.left, gate.cap
  local buyers, fresh = {}, string.format("%.6f|%.0f|", time + tonumber(ARGV[1]), units)
  for buyer in string.gmatch(lines, "(%S+) %S+ %S*\n") do
    buyers[#buyers + 1] = buyer
  end
  local found = redis.call("HMGET", gate.tickets, unpack(buyers))
  local at, n, place = #answers + 4, #fields, 0
  answers[at - 3], answers[at - 2], answers[at - 1], answers[at] = 1, 0, 0, #buyers
  for buyer, order, used in string.gmatch(lines, "(%S+) (%S+) (%S*)\n") do
    place = place + 1
    local text, code, id, held, lasts = given[buyer] or found[place], 2, nil, nil, nil
    if text then
      id, held, lasts = read(text)
    end
    if units > cap then
      code, id = -6, nil
    elseif not id or id == used then
      code, id = units <= left and 1 or 0, nil
    end
    if code == 1 then
      id, held, lasts, left = order, units, ARGV[1], left - units
      given[buyer] = fresh .. order
      fields[n + 1], fields[n + 2], n = buyer, given[buyer], n + 2
    end
    answers[at + 1], answers[at + 2], answers[at + 3] = code, left, id or ""
    answers[at + 4], answers[at + 5], at = held or 0, lasts or "", at + 5
  end
  gate.passed, gate.left = gate.passed + gate.left - left, left
end

for at = 2, #ARGV, 4 do
  local gate, units, buyers = gates[tonumber(ARGV[at])], amount(ARGV[at + 1]), amount(ARGV[at + 2])
  local code, admitted, last = gate.code or (units and buyers and 1 or -2), 0, #answers
  if code == 1 and gate.cap and gate.left + gate.living + #gate.fields > 0 then
    each(gate, units, ARGV[at + 3])
  else
    if code == 1 then
      admitted = math.min(buyers, math.floor(gate.left / units))
      code = admitted == buyers and 1 or 0
      gate.passed, gate.left = gate.passed + admitted * units, gate.left - admitted * units
    end
    answers[last + 1], answers[last + 2], answers[last + 3], answers[last + 4] = code, admitted, gate.left, 0
  end
end
for _, gate in ipairs(gates) do
  if gate.cap and #gate.fields > 0 then
    redis.call("HSET", gate.tickets, unpack(gate.fields))
  end
  admit(gate, gate.passed)
end
return answers
