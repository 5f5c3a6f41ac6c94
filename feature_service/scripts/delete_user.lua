-- Forgets a user and leaves a tombstone; value_format.py says how values are laid out.
--
-- A user who is not stored gets a tombstone as well: events from before the call may still be under way.
--
-- KEYS  1 version counter, 2 log position, 3 log; state, tombstone, seen set
-- ARGV  1 the time in ms, 2 entries that the log keeps at most, 3 what stands for the user's id in the log
-- Returns whether there was a user, and a version counter.

local now = tonumber(ARGV[1])
local state = redis.call("GET", KEYS[4])
local incarnation, current, deleted_at = 0, 0, 0
if state then
  incarnation, current, deleted_at = struct.unpack("<I4I8i8", state, 5)
  incarnation = incarnation + 1
else
  local tombstone = redis.call("GET", KEYS[5])
  if tombstone then
    incarnation, current, deleted_at = struct.unpack("<I4I8i8", tombstone, 5)
  end
end
if state or now > deleted_at then
  current = redis.call("INCR", KEYS[1])
  redis.call("DEL", KEYS[4], KEYS[6])
  redis.call("SET", KEYS[5], struct.pack("<BBBBI4I8i8", 1, 0, 0, 0, incarnation, current, math.max(now, deleted_at)))
  redis.call("XADD", KEYS[3], "MAXLEN", "~", ARGV[2], string.format("%.0f-0", redis.call("INCR", KEYS[2])),
    "t", ARGV[1], "h", ARGV[3], "d", string.format("%.0f", math.max(now, deleted_at)))
end
return { state and 1 or 0, current }
