-- enter: let callers pass while units remain; access never passes count.
--
-- KEYS[1..]  gate  groups  per item: count, start, access, window
-- ARGV[1..]  runs  groups  per run, callers in a row who ask for the same: number of the item's group, units, callers
--
-- Returns code, callers admitted and units left for each run, one after the other; code is that of the last caller
--    1  admitted
--    0  sold out
--   -1  unknown item
--   -2  corrupt
--   -3  not started
--   -4  ended
--   -5  paused

-- include: number
-- include: clock
-- include: window
-- include: gate
local time, gates, answers = now(), {}, {}
for first = 1, #KEYS, 4 do
  local gate = read_gate(time, first)
  gate.passed, gates[#gates + 1] = 0, gate
end
for at = 1, #ARGV, 3 do
  local gate, units, callers = gates[tonumber(ARGV[at])], amount(ARGV[at + 1]), amount(ARGV[at + 2])
  local code, admitted = gate.code or (units and callers and 1 or -2), 0
  if code == 1 then
    admitted = math.min(callers, math.floor(gate.left / units))
    code = admitted == callers and 1 or 0
  end
  if admitted > 0 then
    gate.passed, gate.left = gate.passed + admitted * units, gate.left - admitted * units
  end
  answers[#answers + 1], answers[#answers + 2], answers[#answers + 3] = code, admitted, gate.left
end
for _, gate in ipairs(gates) do
  admit(gate, gate.passed)
end
return answers
