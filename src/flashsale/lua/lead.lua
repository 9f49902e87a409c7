-- lead: be the one syncer that acts, for a while.
--
-- KEYS[1]  meta    hash    leader: token; leader_until: Redis TIME in seconds
-- ARGV[1]  token   string  names this syncer
-- ARGV[2]  lease   number  seconds
--
-- Returns a code
--    1  this one leads until the lease ends
--    0  another one leads

-- include: clock
local time = now()
local values = redis.call("HMGET", KEYS[1], "leader", "leader_until")
if values[1] and values[1] ~= ARGV[1] and time < (tonumber(values[2]) or 0) then
  return 0
end
redis.call("HSET", KEYS[1], "leader", ARGV[1], "leader_until", string.format("%.6f", time + tonumber(ARGV[2])))
return 1
