-- persist: mark queued orders PERSISTED whose rows are committed; their payment deadlines start.
--
-- What `ack` does for a worker, for a web process: it names no key of what workers have claimed.
--
-- KEYS[1]   orders  hash        the ledger
-- KEYS[2]   holds   sorted set  order id -> payment deadline
-- KEYS[3..]         hashes      stock of each item: hold
-- ARGV[1..]         strings     per item: how many of its orders; then order ids by item
--
-- Returns Redis TIME in seconds

-- include: clock
-- include: persisted
return persist(KEYS[1], KEYS[2], 3, 1, #KEYS - 1, function() end)
