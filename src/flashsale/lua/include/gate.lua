-- read_gate(time, first): the gate whose four keys start at KEYS[first], as a table:
--   code   nil when open, else why not: -1 unknown, -2 corrupt; -3, -4 and -5 are those of shut, in window.lua
--   count, access, left   units
--   due    true when the clock opens it now and the start flag must follow
local function read_gate(time, first)
  local values = redis.call("MGET", KEYS[first], KEYS[first + 1], KEYS[first + 2])
  local window = redis.pcall("HMGET", KEYS[first + 3], "opens_at", "closes_at", "pause", "auto")
  if not values[1] and redis.call("EXISTS", KEYS[first]) == 0 then
    return { code = -1, count = 0, access = 0, left = 0 }
  end
  local count, access = integer(values[1]), integer(values[3] or "0")
  for i = 2, 3 do -- MGET passes over a key of another type in silence
    if not values[i] and redis.call("EXISTS", KEYS[first + i - 1]) == 1 then
      access = nil
    end
  end
  if not count or not access or window.err then
    return { code = -2, count = 0, access = 0, left = 0 }
  end
  local gate = { count = count, access = access, left = math.max(0, count - access), first = first }
  gate.code = shut(time, window[1], window[2], window[3] == "1")
  if not gate.code and values[2] ~= "1" then
    gate.due = window[4] == "1"
    gate.code = not gate.due and -3 or nil
  end
  return gate
end

-- start(gate): write the start flag, if it is due. No command here or in admit replaces a key of another type, as SET
-- does: the web processes' user may call them.
local function start(gate)
  if gate.due then
    redis.call("GETSET", KEYS[gate.first + 1], "1")
    redis.call("HSET", KEYS[gate.first + 3], "auto", "0")
  end
end

-- admit(gate, units): write that so many more units have passed; without any, nothing.
local function admit(gate, units)
  if units > 0 then
    redis.call("INCRBY", KEYS[gate.first + 2], show(units))
    start(gate)
  end
end
