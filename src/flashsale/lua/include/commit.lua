-- commit(seq, all, records): write what a batch put into the ledger: the sale's last number, the units of the items
-- that have changed, the records by order id. KEYS[1] is meta, KEYS[2] the ledger.
local function commit(seq, all, records)
  redis.call("HSET", KEYS[1], "seq", show(seq))
  for _, goods in ipairs(all) do
    if goods.ledger ~= goods.before then
      book(goods)
    end
  end
  if seq <= #records / 2 then -- the sale's first orders
    spread(KEYS[2], records[1])
  end
  redis.call("HSET", KEYS[2], unpack(records))
end
