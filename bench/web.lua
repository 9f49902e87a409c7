-- wrk: every request buys under an order id of its own; the figures come out as JSON.
local threads = 0
function setup(thread)
  threads = threads + 1
  thread:set("me", threads)
end
function init(args)
  prefix, count = args[1], 0
end
function request()
  count = count + 1
  local name = prefix .. "-" .. me .. "-" .. count
  return wrk.format("POST", "/buy/phone", { ["X-Buyer"] = name, ["Idempotency-Key"] = name })
end
function done(summary, latency)
  local errors = summary.errors
  io.stdout:write(string.format(
    '{"rate": %f, "p50": %f, "p99": %f, "p999": %f, "failed": %d}\n',
    summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
