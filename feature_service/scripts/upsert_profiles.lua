-- Creates or changes profiles of users of one partition; value_format.py says how values are laid out.
--
-- KEYS  1 version counter; then per user: state, tombstone
-- ARGV  per user four fields (gender, age, occupation, zip): "" keeps what is stored, else the packed field
-- Returns per user a version counter. A user whose profile is the same already keeps his version.

local HEADER = "<BBHI4I8i8i8I4HH"
local HEADER_BYTES = 40

local version
local function next_version()
  version = version or redis.call("INCR", KEYS[1])
  return version
end

local function fields_of(profile)
  local fields, position = {}, 1
  while position <= #profile do
    local length = math.max(1, string.byte(profile, position))
    fields[#fields + 1] = string.sub(profile, position, position + length - 1)
    position = position + length
  end
  return fields
end

local replies = {}
for user = 1, (#KEYS - 1) / 2 do
  local state_key = KEYS[2 * user]
  local state = redis.call("GET", state_key)
  local incarnation, current, deleted_at, expires_at, num_watched = 0, 0, 0, 0, 0
  local num_entries, num_older, profile, body = 0, 0, "", ""
  if state then
    local form, zero, profile_bytes
    form, zero, profile_bytes, incarnation, current, deleted_at, expires_at, num_watched, num_entries, num_older =
      struct.unpack(HEADER, state)
    if form ~= 1 then
      error("a user's state has format " .. form)
    end
    profile = string.sub(state, HEADER_BYTES + 1, HEADER_BYTES + profile_bytes)
    body = string.sub(state, HEADER_BYTES + profile_bytes + 1)
  else
    local tombstone = redis.call("GET", KEYS[2 * user + 1])
    if tombstone then
      incarnation, current, deleted_at = struct.unpack("<I4I8i8", tombstone, 5)
    end
  end
  local stored, fields, known = fields_of(profile), {}, false
  for field = 1, 4 do
    local given = ARGV[4 * (user - 1) + field]
    fields[field] = given ~= "" and given or stored[field] or "\0"
    known = known or fields[field] ~= "\0"
  end
  -- No field and no bytes are the same, so that a cleared profile leaves the bytes of one that never was.
  local new_profile = known and table.concat(fields) or ""
  if not state or new_profile ~= profile then
    current = next_version()
    redis.call("SET", state_key, struct.pack(HEADER, 1, 0, #new_profile, incarnation, current, deleted_at, expires_at,
      num_watched, num_entries, num_older) .. new_profile .. body)
  end
  replies[user] = current
end
return replies
