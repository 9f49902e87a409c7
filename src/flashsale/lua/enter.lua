-- enter: let callers pass while units remain; access never passes count.
--
-- KEYS[1..]  gate    groups  per goods: count, start, access, window
-- ARGV[1..]  groups  groups  per caller: number of the goods' group, units
--
-- Returns code and units left for each caller, one after the other
--    1  admitted
--    0  sold out
--   -1  unknown goods
--   -2  corrupt
--   -3  not started
--   -4  ended
--   -5  paused

-- include: number
-- include: clock
-- include: gate
local time, gates, answers = now(), {}, {}
for first = 1, #KEYS, 4 do
  gates[#gates + 1] = look(time, first)
end
for at = 1, #ARGV, 2 do
  local gate, units = gates[tonumber(ARGV[at])], integer(ARGV[at + 1])
  local code = gate.code or (not units or units < 1 or units > 1000000) and -2 or (units > gate.left and 0 or 1)
  if code == 1 then
    gate.access, gate.left, gate.changed = gate.access + units, gate.left - units, true
  end
  answers[#answers + 1], answers[#answers + 2] = code, gate.left
end
for _, gate in ipairs(gates) do
  if gate.changed then
    admit(gate)
  end
end
return answers
