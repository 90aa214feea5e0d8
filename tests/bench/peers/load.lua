-- wrk script: rotates over the tokens of the file $TOKENS and over the 100 routes; $CONNECTION is a field if not empty.
local requests, at = {}, 0
local connection = os.getenv('CONNECTION')
if connection == '' then connection = nil end

function init()
  for token in io.lines(os.getenv('TOKENS')) do
    local path = '/api/v1/res' .. ((#requests * 37 + 42) % 100) .. '/items/12345'
    requests[#requests + 1] = wrk.format('GET', path, {
      ['Authorization'] = 'Bearer ' .. token, ['Host'] = 'gw.local', ['User-Agent'] = 'wrk', ['Accept'] = 'application/json',
      ['Connection'] = connection,
    })
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

-- Requests, microseconds, bad statuses, broken connections, timeouts, then the 50th, 90th and 99th percentile in microseconds.
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('RESULT %d %d %d %d %d %d %d %d\n', summary.requests, summary.duration, errors.status,
    errors.read + errors.write + errors.connect, errors.timeout, latency:percentile(50), latency:percentile(90), latency:percentile(99)))
end
