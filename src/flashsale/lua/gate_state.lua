-- gate_state: what the gate knows; reads only, so a replica answers as well.
--
-- KEYS[1]  count   string  units that may pass
-- KEYS[2]  start   string  start flag
-- KEYS[3]  access  string  units that passed
-- KEYS[4]  window  hash    opens_at, closes_at, pause, auto
--
-- Returns {code, count, access, units left, opens_at, closes_at, pause, seconds of the server's clock}
--    1  a caller would be admitted while units are left
--   -1  unknown item
--   -2  corrupt
--   -3  not started
--   -4  ended
--   -5  paused

-- include: number
-- include: clock
-- include: window
-- include: gate
local time = now()
local gate = read_gate(time, 1)
local window = gate.code == -2 and {} or redis.call("HMGET", KEYS[4], "opens_at", "closes_at", "pause")
return {
  gate.code or 1, show(gate.count), show(gate.access), show(gate.left), window[1] or "", window[2] or "", window[3] or "",
  string.format("%.6f", time),
}
