-- Reads and writes a user's state; value_format.py says how it is laid out. Stands before the scripts that need it.

local HEADER, HEADER_BYTES = "<BBHI4I8i8i8i8I4HH", 48
-- Format 1 has one time of expiry for all.
local OLD_HEADER, OLD_HEADER_BYTES = "<BBHI4I8i8i8I4HH", 40

local function alive(expires_at, now)
  return expires_at == 0 or expires_at > now
end

-- Returns the state of a user as a table, that of a new one if he has none. What has expired is as if it never was.
local function read_state(state_key, tombstone_key, seen_key, now)
  local user = { incarnation = 0, version = 0, deleted_at = 0, history_until = 0, profile_until = 0, watched = 0,
    profile = "", entries = "", older = "", stored = false }
  local state = redis.call("GET", state_key)
  if not state then
    local tombstone = redis.call("GET", tombstone_key)
    if tombstone then
      user.incarnation, user.version, user.deleted_at = struct.unpack("<I4I8i8", tombstone, 5)
    end
    return user
  end
  local form, zero, profile_bytes, num_entries, num_older, body = string.byte(state, 1)
  if form == 2 then
    form, zero, profile_bytes, user.incarnation, user.version, user.deleted_at, user.history_until, user.profile_until,
      user.watched, num_entries, num_older = struct.unpack(HEADER, state)
    body = HEADER_BYTES + 1
  elseif form == 1 then
    form, zero, profile_bytes, user.incarnation, user.version, user.deleted_at, user.history_until, user.watched,
      num_entries, num_older = struct.unpack(OLD_HEADER, state)
    user.profile_until, body = user.history_until, OLD_HEADER_BYTES + 1
  else
    error("a user's state has format " .. form)
  end
  user.stored = true
  if alive(user.profile_until, now) then
    user.profile = string.sub(state, body, body + profile_bytes - 1)
  end
  if alive(user.history_until, now) then
    local older_at = body + profile_bytes + num_entries * 24
    user.entries = string.sub(state, body + profile_bytes, older_at - 1)
    user.older = string.sub(state, older_at)
  else
    user.watched = 0
    redis.call("DEL", seen_key)
  end
  return user
end

-- Writes a user. Redis forgets him, and what he has seen, once everything of him has been expired for a while.
local function write_state(state_key, seen_key, user, visible)
  redis.call("SET", state_key, struct.pack(HEADER, 2, 0, #user.profile, user.incarnation, user.version, user.deleted_at,
    user.history_until, user.profile_until, user.watched, #user.entries / 24, #user.older / 24)
    .. user.profile .. user.entries .. user.older)
  if user.history_until > 0 and (user.profile_until > 0 or user.profile == "") then
    redis.call("PEXPIREAT", state_key, string.format("%.0f", math.max(user.history_until, user.profile_until) + visible))
  elseif user.profile_until > 0 and user.watched == 0 then
    redis.call("PEXPIREAT", state_key, string.format("%.0f", user.profile_until + visible))
  end
  if user.history_until > 0 then
    redis.call("PEXPIREAT", seen_key, string.format("%.0f", user.history_until + visible))
  end
end

