-- tell: what a process tells of itself, and what it has counted since it told last. Nothing of a sale that is gone.
--
-- KEYS[1]  meta       hash        layout
-- KEYS[2]  processes  hash        name -> beat|since|what it tells
-- KEYS[3]  minutes    sorted set  minutes that have counts
-- KEYS[4]  stats      hash        counts since the sale began
-- KEYS[5]  minute     hash        counts of this minute
-- ARGV[1]  name       string      of the process
-- ARGV[2]  told       string      JSON
-- ARGV[3]  ago        number      seconds since it began what it does; empty: it waits
-- ARGV[4]  minute     integer     since the epoch
-- ARGV[5..]           groups of 2  a name, and how often it was counted
--
-- Returns a code
--    1  recorded
--    0  there is no sale

-- include: number
-- include: layout
-- include: clock
if redis.call("EXISTS", KEYS[1]) == 0 then
  return 0
end
local time = now()
local since = ARGV[3] ~= "" and string.format("%.6f", time - tonumber(ARGV[3])) or ""
redis.call("HSET", KEYS[2], ARGV[1], string.format("%.6f|%s|%s", time, since, ARGV[2]))
if #ARGV > 4 then
  redis.call("ZADD", KEYS[3], ARGV[4], ARGV[4])
end
for i = 5, #ARGV, 2 do
  redis.call("HINCRBY", KEYS[4], ARGV[i], ARGV[i + 1])
  redis.call("HINCRBY", KEYS[5], ARGV[i], ARGV[i + 1])
end
return 1
