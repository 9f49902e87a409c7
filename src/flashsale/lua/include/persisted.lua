-- persist(orders, holds, first, sizes, ids): mark QUEUED orders PERSISTED and start their payment deadlines.
--   orders, holds   keys of the ledger and of the payment deadlines
--   first           KEYS[first], KEYS[first + 1], ...: the stock of each item
--   sizes           ARGV[sizes], ...: how many orders of each item
--   ids             ARGV[ids], ...: the order ids, by item
-- Only after persist has read everything does it call free(), which may write.
local QUEUED = "^QUEUED(|[1-9]%d*|[0-3]|[%w_.-]+|%d+|[!-~]+)$" -- a record, and all of it but its state
local function persist(orders, holds, first, sizes, ids, free)
  local time = now()
  redis.call("ZCARD", holds)
  local known = ids <= #ARGV and redis.call("HMGET", orders, unpack(ARGV, ids)) or { redis.call("HLEN", orders) }
  local lasts = {}
  for key = first, #KEYS do
    lasts[#lasts + 1] = seconds(redis.pcall("HGET", KEYS[key], "hold")) or false
  end
  free()
  local at, n, records, deadlines = 0, 0, {}, {}
  for i, hold in ipairs(lasts) do
    local due = hold and string.format("%.6f", time + hold)
    for _ = 1, tonumber(ARGV[sizes + i - 1]) do
      at = at + 1
      local rest = string.match(known[at] or "", QUEUED)
      if rest then
        n = n + 1
        local id = ARGV[ids + at - 1]
        records[2 * n - 1], records[2 * n] = id, "PERSISTED" .. rest
        if due then
          deadlines[#deadlines + 1], deadlines[#deadlines + 2] = due, id
        end
      end
    end
  end
  if n > 0 then
    redis.call("HSET", orders, unpack(records))
  end
  if #deadlines > 0 then
    redis.call("ZADD", holds, unpack(deadlines))
  end
  return string.format("%.6f", time)
end
