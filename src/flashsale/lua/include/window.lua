-- shut(time, opens_at, closes_at, paused): nil while open, else the code: -4 ended, -5 paused, -3 not started,
-- -2 when a time is not a number.
local function shut(time, opens_at, closes_at, paused)
  for _, at in ipairs({ opens_at or "0", closes_at or "0" }) do
    if not string.find(at, "^%d+%.?%d*$") then
      return -2
    end
  end
  if closes_at and time >= tonumber(closes_at) then
    return -4
  end
  if paused then
    return -5
  end
  if opens_at and time < tonumber(opens_at) then
    return -3
  end
end
