-- Writes users of an older format in the newest, and changes nothing else of them; value_format.py says how they lie.
--
-- KEYS  states of one partition
-- ARGV  1 "write", or "count" to change nothing
-- Returns the format that each state had, 0 if it is gone. One of a newer build stays as it is.

local formats = {}
for position, state_key in ipairs(KEYS) do
  local state = redis.call("GET", state_key)
  local form = state and string.byte(state, 1) or 0
  if form == 1 and ARGV[1] == "write" then
    local head, body = read_header(state)
    redis.call("SET", state_key, struct.pack(HEADER, 2, 0, head.profile_bytes, head.incarnation, head.version,
      head.deleted_at, head.history_until, head.profile_until, head.watched, head.num_entries, head.num_older)
      .. string.sub(state, body), "KEEPTTL")
  end
  formats[position] = form
end
return formats
