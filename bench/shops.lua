-- wrk: asks a shop for one thing; prints the figures as JSON. What answers otherwise than with `status` has failed.
--
-- arguments: method, path, status, file for the `Location` of each order or nothing
local threads = {}
function setup(thread)
  table.insert(threads, thread)
  thread:set("failed", 0)
end
function init(arguments)
  wrk.method, wrk.path = arguments[1], arguments[2]
  wrk.headers["Accept"] = "application/json"
  local status, orders = tonumber(arguments[3]), arguments[4] and io.open(arguments[4], "w")
  looks = status ~= 200 -- it takes time, and wrk itself counts what is not of the kind of 200
  if looks then
    function response(got, headers)
      if got ~= status then
        failed = failed + 1
      elseif orders then
        orders:write(headers["Location"] or headers["location"], "\n")
      end
    end
  end
end
function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout
  for _, thread in ipairs(threads) do
    failed = failed + (thread:get("looks") and thread:get("failed") or errors.status)
  end
  io.stdout:write(string.format(
    '{"rate": %f, "p50": %f, "p99": %f, "p999": %f, "failed": %d}\n',
    summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3, failed))
end
