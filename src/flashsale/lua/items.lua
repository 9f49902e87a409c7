-- items: the names of all items that were preloaded; reads only.
--
-- KEYS[1]  goods  set  names
--
-- Returns the names, in no order; none where the key is of another type

local names = redis.pcall("SMEMBERS", KEYS[1])
return names.err and {} or names
