-- layout: refuse a sale that this release cannot read, for what asks nothing else of meta.
--
-- KEYS[1]  meta  hash  layout
--
-- Returns a code
--    1  it can

-- include: number
-- include: layout
return 1
