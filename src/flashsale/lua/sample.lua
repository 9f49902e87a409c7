-- sample: add one sample to each item's list. A list that has grown to `most` loses every second one of its older half.
--
-- KEYS[1]   meta  hash     layout
-- KEYS[2..]       list     samples of each item
-- ARGV[1]   most  integer  samples of a list
-- ARGV[2..]       string   a sample of each item
--
-- Returns a code
--    1  added
--    0  there is no sale

-- include: number
-- include: layout
if redis.call("EXISTS", KEYS[1]) == 0 then
  return 0
end
for key = 2, #KEYS do
  local length = redis.call("RPUSH", KEYS[key], ARGV[key])
  if length > tonumber(ARGV[1]) then
    local all, kept = redis.call("LRANGE", KEYS[key], 0, length), {}
    for place, sample in ipairs(all) do
      if place > #all / 2 or place % 2 == 1 then
        kept[#kept + 1] = sample
      end
    end
    redis.call("UNLINK", KEYS[key])
    for first = 1, #kept, 1000 do
      redis.call("RPUSH", KEYS[key], unpack(kept, first, math.min(#kept, first + 999)))
    end
  end
end
return 1
