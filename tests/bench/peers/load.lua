-- wrk script: rotates over the tokens of the file $TOKENS and over the 100 routes. $CONNECTION is a field if not empty; with
-- $ITEM, all requests are for that item of one route, and with $UPLOAD they carry so many bytes there.
local requests, at = {}, 0
local connection = os.getenv('CONNECTION')
if connection == '' then connection = nil end
local item, upload = os.getenv('ITEM') or '', tonumber(os.getenv('UPLOAD') or '') or 0

function init()
  local body = upload > 0 and string.rep('x', upload) or nil
  for token in io.lines(os.getenv('TOKENS')) do
    -- A whole request is kept for each token.
    if body and #requests == 8 then break end
    local path = '/api/v1/res' .. ((#requests * 37 + 42) % 100) .. '/items/12345'
    if item ~= '' then path = '/api/v1/res42/items/' .. item end
    requests[#requests + 1] = wrk.format(body and 'POST' or 'GET', path, {
      ['Authorization'] = 'Bearer ' .. token, ['Host'] = 'gw.local', ['User-Agent'] = 'wrk', ['Accept'] = 'application/json',
      ['Connection'] = connection,
    }, body)
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
