-- Forgets a user and leaves a tombstone; value_format.py says how values are laid out.
--
-- A user who is not stored gets a tombstone as well: events from before the call may still be under way.
-- An event from a clock that is ahead is forgotten too: the time of deletion is at least that of the newest event, for
-- who reads the event log knows by it which of the user's events are gone.
--
-- KEYS  1 version counter, 2 log position, 3 log; state, tombstone, seen set
-- ARGV  1 the time in ms, 2 entries that the log keeps at most, 3 what stands for the user's id in the log, 4 the latest
--       time that an event may have had
-- Returns whether there was a user, and a version counter.

local now = tonumber(ARGV[1])
local state = redis.call("GET", KEYS[4])
local incarnation, current, deleted_before = 0, 0, 0
local deleted_at = now
if state then
  local head, body = read_header(state)
  incarnation, current, deleted_before = head.incarnation + 1, head.version, head.deleted_at
  if head.num_entries > 0 then
    local newest = struct.unpack("<i8", state, body + head.profile_bytes + 8)
    deleted_at = math.max(now, math.min(newest, tonumber(ARGV[4])))
  end
else
  local tombstone = redis.call("GET", KEYS[5])
  if tombstone then
    incarnation, current, deleted_before = read_tombstone(tombstone)
  end
  -- Followers are told of keys that are written, and the model must not answer from what it learnt of him before.
  redis.call("SET", KEYS[4], "")
end
deleted_at = math.max(deleted_at, deleted_before)
redis.call("DEL", KEYS[4], KEYS[6])
if state or deleted_at > deleted_before then
  current = redis.call("INCR", KEYS[1])
  redis.call("SET", KEYS[5], struct.pack("<BBBBI4I8i8", 1, 0, 0, 0, incarnation, current, deleted_at))
  redis.call("XADD", KEYS[3], "MAXLEN", "~", ARGV[2], string.format("%.0f-0", redis.call("INCR", KEYS[2])),
    "t", ARGV[1], "h", ARGV[3], "d", string.format("%.0f", deleted_at))
end
return { state and 1 or 0, current }
