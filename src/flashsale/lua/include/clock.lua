-- now(): seconds of the server's clock, the only clock that counts.
local function now()
  local time = redis.call("TIME")
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

-- seconds(text): the number, if text is digits with or without a fraction, at most 20 characters; else nil.
local function seconds(text)
  if type(text) == "string" and #text <= 20 and string.find(text, "^%d+%.?%d*$") then
    return tonumber(text)
  end
end
