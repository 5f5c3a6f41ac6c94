-- Reads and writes a user's state; value_format.py says how it is laid out. Stands before the scripts that need it.

local HEADER, HEADER_BYTES = "<BBHI4I8i8i8i8I4HH", 48
-- Format 1 has one time of expiry for all.
local OLD_HEADER, OLD_HEADER_BYTES = "<BBHI4I8i8i8I4HH", 40

local function alive(expires_at, now)
  return expires_at == 0 or expires_at > now
end

-- What this build cannot read it must not guess at: a newer one wrote it.
local function refuse_format(what, form, known)
  error(string.format("NEWERFORMAT %s has format %d, this build knows %s", what, form, known))
end

-- Returns the fixed part of a state, and where the profile begins.
local function read_header(state)
  local form, zero, head = string.byte(state, 1), 0, {}
  if form == 2 then
    form, zero, head.profile_bytes, head.incarnation, head.version, head.deleted_at, head.history_until,
      head.profile_until, head.watched, head.num_entries, head.num_older = struct.unpack(HEADER, state)
    return head, HEADER_BYTES + 1
  elseif form == 1 then
    form, zero, head.profile_bytes, head.incarnation, head.version, head.deleted_at, head.history_until, head.watched,
      head.num_entries, head.num_older = struct.unpack(OLD_HEADER, state)
    head.profile_until = head.history_until
    return head, OLD_HEADER_BYTES + 1
  end
  return refuse_format("a user's state", form, "1 and 2")
end

-- Returns incarnation, version and time of a deletion.
local function read_tombstone(tombstone)
  if string.byte(tombstone, 1) ~= 1 then
    refuse_format("a tombstone", string.byte(tombstone, 1), "1")
  end
  return struct.unpack("<I4I8i8", tombstone, 5)
end

-- Returns the state of a user as a table, that of a new one if he has none. What has expired is as if it never was.
local function read_state(state_key, tombstone_key, seen_key, now)
  local user = { incarnation = 0, version = 0, deleted_at = 0, history_until = 0, profile_until = 0, watched = 0,
    profile = "", entries = "", older = "", stored = false, expired = false }
  local state = redis.call("GET", state_key)
  if not state then
    local tombstone = redis.call("GET", tombstone_key)
    if tombstone then
      user.incarnation, user.version, user.deleted_at = read_tombstone(tombstone)
    end
    return user
  end
  local head, body = read_header(state)
  user.stored, user.incarnation, user.version, user.deleted_at = true, head.incarnation, head.version, head.deleted_at
  if alive(head.profile_until, now) then
    user.profile, user.profile_until = string.sub(state, body, body + head.profile_bytes - 1), head.profile_until
  else
    user.expired = true
  end
  if alive(head.history_until, now) then
    local older_at = body + head.profile_bytes + head.num_entries * 24
    user.history_until, user.watched = head.history_until, head.watched
    user.entries = string.sub(state, body + head.profile_bytes, older_at - 1)
    user.older = string.sub(state, older_at)
  else
    user.expired = true
    redis.call("DEL", seen_key)
  end
  user.expired = user.expired and user.profile == "" and user.watched == 0
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
  else
    redis.call("PERSIST", seen_key)
  end
end

