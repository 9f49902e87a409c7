-- integer(text): the number, if text is "0" or 1-15 digits without a leading zero; else nil.
local function integer(text)
  if type(text) == "string" and #text <= 15 and (text == "0" or string.find(text, "^[1-9]%d*$")) then
    return tonumber(text)
  end
end

-- show(number): its digits; Lua's own tostring turns to 1e+15.
local function show(number)
  return string.format("%.0f", number)
end
