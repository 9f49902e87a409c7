-- offer(all, width, take, time, paused): set what each item of a batch has for sale: its gate, the units left, and the
-- code while it sells nothing. `take` asks the gate, whose keys follow those of stock and buyers in its group of `width`.
local function offer(all, width, take, time, paused)
  for i, goods in ipairs(all) do
    goods.gate = take and not goods.code and read_gate(time, 7 + (i - 1) * width) or { left = goods.total }
    goods.left = math.min(math.max(0, goods.total - goods.booked), goods.gate.left)
    goods.code = goods.code or goods.gate.code or shut(time, goods.opens_at, goods.closes_at, paused)
  end
end

-- refuse(answers, of): refuse the whole batch: no order of it is booked, and no unit gone. `of` has the item of each.
local function refuse(answers, of)
  for i, goods in ipairs(of) do
    answers[2 * i - 1] = answers[2 * i - 1] == 1 and -10 or answers[2 * i - 1]
    answers[2 * i] = goods.left + goods.ledger - goods.before
  end
end

-- admit_all(all): write the units that the batch has taken through the gate of each item.
local function admit_all(all)
  for _, goods in ipairs(all) do
    admit(goods.gate, goods.ledger - goods.before) -- none, where the item is unknown
  end
end
