-- Creates or changes profiles of users of one partition; value_format.py says how values are laid out.
--
-- KEYS  1 version counter; then per user: state, tombstone, seen set
-- ARGV  1 the time in ms, 2 how long a profile lives without a write in ms, 0 for ever, 3 how long what expired is kept;
--       then per user four fields (gender, age, occupation, zip): "" keeps what is stored, else the packed field
-- Returns per user a version counter. A user whose profile is the same already keeps his version and lives on.

local now, profile_ttl, visible = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
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
for position = 1, (#KEYS - 1) / 3 do
  local state_key, seen_key = KEYS[3 * position - 1], KEYS[3 * position + 1]
  local user = read_state(state_key, KEYS[3 * position], seen_key, now)
  local stored, fields, known = fields_of(user.profile), {}, false
  for field = 1, 4 do
    local given = ARGV[4 * position - 1 + field]
    fields[field] = given ~= "" and given or stored[field] or "\0"
    known = known or fields[field] ~= "\0"
  end
  -- No field and no bytes are the same, so that a cleared profile leaves the bytes of one that never was.
  local profile = known and table.concat(fields) or ""
  local changed = not user.stored or user.expired or profile ~= user.profile
  local profile_until = profile_ttl > 0 and now + profile_ttl or 0
  if changed or profile_until ~= user.profile_until then
    user.version = changed and next_version() or user.version
    user.profile, user.profile_until = profile, profile_until
    write_state(state_key, seen_key, user, visible)
  end
  replies[position] = user.version
end
return replies
