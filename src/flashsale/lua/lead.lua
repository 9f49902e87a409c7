-- lead: be the one syncer that acts, for a while.
--
-- KEYS[1]  meta    hash    layout; leader: token; leader_until: Redis TIME in seconds
-- ARGV[1]  token   string  names this process
-- ARGV[2]  lease   number  seconds; 0 returns the lease
--
-- Returns a code
--    1  this one leads until the lease ends
--    0  another one leads

-- include: number
-- include: layout
-- include: clock
local LONGEST = 60 -- seconds, twice what is asked for: a lease that ends later is of a clock that was set back
local time = now()
local values = redis.call("HMGET", KEYS[1], "leader", "leader_until")
local until_ = tonumber(values[2]) or 0
if values[1] and values[1] ~= ARGV[1] and time < until_ and until_ - time <= LONGEST then
  return 0
end
redis.call("HSET", KEYS[1], "leader", ARGV[1], "leader_until", string.format("%.6f", time + tonumber(ARGV[2])))
return 1
