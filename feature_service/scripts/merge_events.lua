-- Merges events into the histories of users of one partition; value_format.py says how values are laid out.
--
-- Per movie the state keeps the newest event by (time, hash, rating; no rating is lowest) and, where that one has no
-- rating, the newest rated event. Of the movies it keeps the newest `window` by (time, number) of their newest event.
-- Rated events below the key of the oldest kept movie of a full window are dropped. All of these are maxima and a floor
-- that only rises, so any order and repetition of the same events ends in the same bytes but for the version.
--
-- An event that changes something, or would have but for newer ones of the same call, is appended to the partition's
-- log; one that is older than a window that was full before only if its movie was never seen: so the same event is logged
-- once, however often it comes. What is imported is not logged.
--
-- KEYS  1 version counter, 2 log position, 3 log; then per user: state, tombstone, seen set
-- ARGV  1 window, 2 entries that the log keeps at most, 3 the time in ms, 4 how long a history lives without a change in
--       ms, 0 for ever, 5 how long what expired is kept; then per user: events; prepared state; its seen set; assumed
--       deletion time, "" for any
--       Either events (24 bytes each, as entries) or a prepared state is given, or neither: then nothing changes.
--       A prepared state is written as it is if the user has no history, and else merged as the events that it holds.
-- Returns per user a version counter and one letter per event (A applied, D duplicate, S stale), the entries of a
-- prepared state before its older ratings; or -1 and the deletion time if that is not the assumed one.

local EVENT = "<I4fi8I8"
local EVENT_BYTES = 24
local NAN = struct.pack("<I4", 0x7fc00000)
local window, now, history_ttl, visible = tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local version
local function next_version()
  version = version or redis.call("INCR", KEYS[1])
  return version
end

local function log_event(state_key, event)
  local position = string.format("%.0f-0", redis.call("INCR", KEYS[2]))
  redis.call("XADD", KEYS[3], "MAXLEN", "~", ARGV[2], position,
    "t", ARGV[3], "u", string.match(state_key, "^{p%d+}:u:(.*)$"), "e", event)
end

local function read_event(bytes, position)
  local number, rating, time, hash = struct.unpack(EVENT, bytes, position)
  if rating ~= rating then
    rating = nil
  end
  return { n = number, t = time, h = hash, r = rating }
end

-- Positive if event a is newer than b, 0 if it is the same.
local function compare(a, b)
  if a.t ~= b.t then
    return a.t - b.t
  end
  if a.h ~= b.h then
    return a.h - b.h
  end
  local a_rating, b_rating = a.r or -math.huge, b.r or -math.huge
  if a_rating == b_rating then
    return 0
  end
  return a_rating > b_rating and 1 or -1
end

local function before(t1, n1, t2, n2)
  return t1 < t2 or (t1 == t2 and n1 < n2)
end

local function events_of_bytes(bytes)
  local events = {}
  for position = 1, #bytes, EVENT_BYTES do
    events[#events + 1] = read_event(bytes, position)
  end
  return events
end

-- Returns entries and older ratings of a prepared state.
local function body_of(prepared)
  local num_entries = struct.unpack("<H", prepared, HEADER_BYTES - 3)
  local older_at = HEADER_BYTES + num_entries * EVENT_BYTES + 1
  return string.sub(prepared, HEADER_BYTES + 1, older_at - 1), string.sub(prepared, older_at)
end

local function events_of_body(entries, older)
  local events = events_of_bytes(entries .. older)
  local num_entries = #entries / EVENT_BYTES
  local rated_earlier = {}
  for position = num_entries + 1, #events do
    rated_earlier[events[position].n] = true
  end
  for position = 1, num_entries do
    if rated_earlier[events[position].n] then
      events[position].r = nil
    end
  end
  return events
end

-- Returns where a movie's entry begins, nil if there is none. A search for its bytes is far cheaper than reading all.
local function find_entry(entries, number)
  local bytes, from = struct.pack("<I4", number), 1
  while true do
    local position = string.find(entries, bytes, from, true)
    if not position or (position - 1) % EVENT_BYTES == 0 then
      return position
    end
    from = position + 1
  end
end

-- Returns how many entries are newer than a time and number.
local function num_newer(entries, time, number)
  local low, high = 0, #entries / EVENT_BYTES
  while low < high do
    local middle = math.floor((low + high) / 2)
    local position = middle * EVENT_BYTES + 1
    local entry_number = struct.unpack("<I4", entries, position)
    if before(time, number, struct.unpack("<i8", entries, position + 8), entry_number) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

local function read_older(bytes)
  local older = {}
  for _, event in ipairs(events_of_bytes(bytes)) do
    older[event.n] = event
  end
  return older
end

-- Reads the movies that events name, where they are stored; the others stay bytes.
local function read_movies(entries, older, named)
  local movies = {}
  for number in pairs(named) do
    local position = find_entry(entries, number)
    if position then
      local newest = read_event(entries, position)
      local rated = older[number]
      if rated then
        newest.r = nil
      elseif newest.r then
        rated = newest
      end
      movies[number] = { newest = newest, rated = rated, position = position }
    end
  end
  return movies
end

local function apply(event, movies)
  local movie = movies[event.n]
  if not movie then
    movies[event.n] = { newest = event, rated = event.r and event or nil }
    return "A"
  end
  local status = "S"
  local order = compare(event, movie.newest)
  if order > 0 then
    movie.newest, status = event, "A"
  elseif order == 0 then
    status = "D"
  end
  if event.r then
    local rated_order = movie.rated and compare(event, movie.rated) or 1
    if rated_order > 0 then
      movie.rated, status = event, "A"
    elseif rated_order == 0 and status == "S" then
      status = "D"
    end
  end
  return status
end

local function pack_entry(number, movie)
  local stars = movie.rated and struct.pack("<f", movie.rated.r) or NAN
  return struct.pack("<I4", number) .. stars .. struct.pack("<i8I8", movie.newest.t, movie.newest.h)
end

-- Returns the entries with those of `movies` in their new places, at most a window of them.
local function write_entries(entries, movies)
  local changed, removed = {}, {}
  for number, movie in pairs(movies) do
    changed[#changed + 1] = { n = number, t = movie.newest.t, bytes = pack_entry(number, movie) }
    if movie.position then
      removed[#removed + 1] = movie.position
    end
  end
  table.sort(changed, function(a, b) return before(b.t, b.n, a.t, a.n) end)
  table.sort(removed)
  local out, from, next_removed = {}, 1, 1
  -- Copies what lies before a position, but for the old entries of changed movies.
  local function copy_until(position)
    while removed[next_removed] and removed[next_removed] < position do
      out[#out + 1] = string.sub(entries, from, removed[next_removed] - 1)
      from, next_removed = removed[next_removed] + EVENT_BYTES, next_removed + 1
    end
    if from < position then
      out[#out + 1] = string.sub(entries, from, position - 1)
      from = position
    end
  end
  for _, row in ipairs(changed) do
    copy_until(num_newer(entries, row.t, row.n) * EVENT_BYTES + 1)
    out[#out + 1] = row.bytes
  end
  copy_until(#entries + 1)
  return string.sub(table.concat(out), 1, window * EVENT_BYTES)
end

-- Returns the oldest of a full window, nil while it is not full.
local function floor_of(entries)
  if #entries >= window * EVENT_BYTES then
    return read_event(entries, #entries - EVENT_BYTES + 1)
  end
end

local function is_below(event, floor)
  return floor and before(event.t, event.n, floor.t, floor.n)
end

-- Returns the new entries, the new older ratings, and the floor (time and number), nil while the window is not full.
local function write_body(entries, older, movies)
  entries = write_entries(entries, movies)
  local floor = floor_of(entries)
  for number, movie in pairs(movies) do
    older[number] = not movie.newest.r and movie.rated or nil
  end
  local rows = {}
  for number, rated in pairs(older) do
    local position = find_entry(entries, number)
    if floor and before(rated.t, number, floor.t, floor.n) then
      if position then
        entries = string.sub(entries, 1, position + 3) .. NAN .. string.sub(entries, position + 8)
      end
    else
      rows[#rows + 1] = { position = position, bytes = struct.pack(EVENT, number, rated.r, rated.t, rated.h) }
    end
  end
  table.sort(rows, function(a, b) return a.position < b.position end)
  for position, row in ipairs(rows) do
    rows[position] = row.bytes
  end
  return entries, table.concat(rows), floor
end

local function merge(state_key, tombstone_key, seen_key, bytes, prepared, prepared_seen, assumed)
  local user = read_state(state_key, tombstone_key, seen_key, now)
  if assumed ~= "" and tonumber(assumed) ~= user.deleted_at then
    return -1, string.format("%.0f", user.deleted_at)
  end
  local events
  if prepared == "" then
    events = events_of_bytes(bytes)
  else
    local entries, older = body_of(prepared)
    local num_events = (#entries + #older) / EVENT_BYTES
    if user.watched == 0 then
      user.version, user.entries, user.older = next_version(), entries, older
      user.watched = struct.unpack("<I4", prepared, HEADER_BYTES - 7)
      user.history_until = history_ttl > 0 and now + history_ttl or 0
      redis.call("SET", seen_key, prepared_seen)
      write_state(state_key, seen_key, user, visible)
      return user.version, string.rep("A", num_events)
    end
    -- An import again, the usual case where there is a state: the same bytes hold the same events.
    if user.entries == entries and user.older == older and redis.call("GET", seen_key) == prepared_seen then
      return user.version, string.rep("D", num_events)
    end
    events = events_of_body(entries, older)
  end

  local named, seen = {}, seen_numbers(prepared_seen)
  for _, event in ipairs(events) do
    event.late = user.deleted_at > 0 and event.t <= user.deleted_at
    if not event.late then
      if not named[event.n] and prepared == "" then
        seen[#seen + 1] = event.n
      end
      named[event.n] = true
    end
  end
  local rated_earlier = read_older(user.older)
  local movies = read_movies(user.entries, rated_earlier, named)
  local statuses = {}
  for position, event in ipairs(events) do
    statuses[position] = event.late and "S" or apply(event, movies)
  end
  local old_floor = floor_of(user.entries)
  local new_entries, new_older, floor = write_body(user.entries, rated_earlier, movies)
  local num_new, new = 0, {}
  if #seen > 0 then
    num_new, new = add_seen(seen_key, seen)
  end
  for position, event in ipairs(events) do
    if statuses[position] == "A" then
      -- Of a movie that was seen before it may be the very event that was logged and has left the window since.
      if prepared == "" and (new[event.n] or not is_below(event, old_floor)) then
        log_event(state_key, string.sub(bytes, (position - 1) * EVENT_BYTES + 1, position * EVENT_BYTES))
      end
      if is_below(event, floor) then
        statuses[position] = "S"
      end
    end
  end
  if new_entries ~= user.entries or new_older ~= user.older or num_new > 0 then
    user.version, user.watched = next_version(), user.watched + num_new
    user.entries, user.older = new_entries, new_older
    user.history_until = history_ttl > 0 and now + history_ttl or 0
    write_state(state_key, seen_key, user, visible)
  end
  return user.version, table.concat(statuses)
end

local replies = {}
for user = 1, (#KEYS - 3) / 3 do
  local key, argument = 3 * user + 1, 4 * user + 2
  local counter, statuses = merge(KEYS[key], KEYS[key + 1], KEYS[key + 2],
    ARGV[argument], ARGV[argument + 1], ARGV[argument + 2], ARGV[argument + 3])
  replies[#replies + 1] = counter
  replies[#replies + 1] = statuses
end
return replies
