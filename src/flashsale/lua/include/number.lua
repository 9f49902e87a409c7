-- integer(text): the number, if text is "0" or 1-15 digits without a leading zero; else nil.
local function integer(text)
  if type(text) == "string" and #text <= 15 and (text == "0" or string.find(text, "^[1-9]%d*$")) then
    return tonumber(text)
  end
end

-- amount(text): the number, if text is an integer of 1 to 1000000; else nil.
local function amount(text)
  local number = integer(text)
  return number and number >= 1 and number <= 1000000 and number or nil
end

-- show(number): its digits; Lua's own tostring turns to 1e+15.
local function show(number)
  return string.format("%.0f", number)
end

-- decade(number): its digits but the last, and the last as a number: for counting on without printing each number.
local function decade(number)
  local unit = number % 10
  return number < 10 and "" or show((number - unit) / 10), unit
end

-- counter(last): a function that returns the digits of last + 1, last + 2, ...; printing each number anew is slow.
local function counter(last)
  local tens, unit = decade(last)
  return function()
    last, unit = last + 1, unit + 1
    if unit == 10 then
      tens, unit = decade(last)
    end
    return tens .. unit
  end
end
