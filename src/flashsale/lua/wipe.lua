-- wipe: empty ledger, deadlines and stock of a sale for a rebuild, at once; only while it is closed in this epoch.
--
-- Total stays 0, for external programs too, until all rows are restored. Untracked units, where they can be read, stay
-- booked. A rebuild may die, and the next one finds half a ledger: so `tracked` keeps what it had at first, until `open`.
--
-- KEYS[1]  meta    hash        epoch, state; seq: begins anew, with the ledger
-- KEYS[2]  orders  hash        the ledger: removed
-- KEYS[3]  holds   sorted set  removed
-- KEYS[4]  goods   set         item ids of the sale
-- KEYS[5..]        groups      per item: stock, replaced; buyers, removed
-- ARGV[1]  epoch   integer     of the rebuild
-- ARGV[2..]        groups      per item: item id, version, opens_at, closes_at, per_buyer, hold; empty where there is none
--
-- Returns a code, then of each item the units that the ledger had
--    1  wiped
--   -8  not closed, or another epoch

-- include: number
-- include: goods
local FIELDS = { "version", "opens_at", "closes_at", "per_buyer", "hold" }
local meta = redis.call("HMGET", KEYS[1], "epoch", "state")
if meta[1] ~= ARGV[1] or meta[2] ~= "closed" then
  return { -8 }
end
local answer = { 1 }
local names = redis.pcall("SMEMBERS", KEYS[4])
redis.call("UNLINK", KEYS[4]) -- and with it what somebody else wrote there
for _, name in ipairs(names) do -- none, if it was no set
  if #name <= 64 and string.find(name, "^[%w_.-]+$") then
    redis.call("SADD", KEYS[4], name)
  end
end
redis.call("UNLINK", KEYS[2], KEYS[3])
redis.call("HDEL", KEYS[1], "seq")
for key = 5, #KEYS, 2 do
  local at, goods = 2 + (key - 5) / 2 * (#FIELDS + 1), read(KEYS[key])
  local kept = not goods.code and redis.call("HGET", KEYS[key], "tracked")
  local tracked = show(math.max(math.min(goods.booked, goods.ledger), kept and integer(kept) or 0))
  redis.call("UNLINK", KEYS[key], KEYS[key + 1])
  local untracked = show(math.max(0, goods.booked - goods.ledger))
  redis.call("HSET", KEYS[key], "Total", "0", "Booked", untracked, "Ledger", "0", "tracked", tracked)
  answer[#answer + 1] = tracked
  for i, field in ipairs(FIELDS) do
    if ARGV[at + i] ~= "" then
      redis.call("HSET", KEYS[key], field, ARGV[at + i])
    end
  end
  redis.call("SADD", KEYS[4], ARGV[at])
end
return answer
