-- lead: be the one process that acts in a role, for a while.
--
-- KEYS[1]  meta    hash    layout; ROLE: token; ROLE_until: Redis TIME in seconds
-- ARGV[1]  role    string  leader (of the syncers) or outbox
-- ARGV[2]  token   string  names this process
-- ARGV[3]  lease   number  seconds; 0 returns the lease
--
-- Returns a code
--    2  this one leads until the lease ends, and nobody else has led since it last did
--    1  this one leads until the lease ends
--    0  another one leads

-- include: number
-- include: layout
-- include: clock
local LONGEST = 60 -- seconds, twice what any role asks for: a lease that ends later is of a clock that was set back
local time = now()
local ends = ARGV[1] .. "_until"
local values = redis.call("HMGET", KEYS[1], ARGV[1], ends)
local until_ = tonumber(values[2]) or 0
if values[1] and values[1] ~= ARGV[2] and time < until_ and until_ - time <= LONGEST then
  return 0
end
redis.call("HSET", KEYS[1], ARGV[1], ARGV[2], ends, string.format("%.6f", time + tonumber(ARGV[3])))
return values[1] == ARGV[2] and 2 or 1
