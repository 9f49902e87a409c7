-- sweep: remove the tickets of one item that are used or have expired, a page at a time.
--
-- KEYS[1]  tickets  hash    buyer id -> end|units|order id
-- KEYS[2]  orders   hash    the ledger; named only where gate and stock share a Redis: elsewhere used ones expire
-- ARGV[1]  cursor   string  where the page begins; 0 at first
-- ARGV[2]  page     number  tickets, about
--
-- Returns {where the next page begins, 0 after the last one; how many were removed}

-- include: clock
local time, buyers, ids, dead = now(), {}, {}, {}
local page = redis.call("HSCAN", KEYS[1], ARGV[1], "COUNT", ARGV[2])
for i = 1, #page[2], 2 do
  local ends, id = string.match(page[2][i + 1], "^([%d.]+)|%d+|([!-~]+)$")
  if (seconds(ends) or 0) > time then
    buyers[#buyers + 1], ids[#ids + 1] = page[2][i], id
  else
    dead[#dead + 1] = page[2][i]
  end
end
local orders = KEYS[2] and #ids > 0 and redis.pcall("HMGET", KEYS[2], unpack(ids)) or {}
for i, buyer in ipairs(buyers) do
  dead[#dead + 1] = orders[i] and buyer or nil
end
if #dead > 0 then
  redis.call("HDEL", KEYS[1], unpack(dead))
end
return { page[1], #dead }
