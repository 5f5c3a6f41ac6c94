-- Reads and writes a seen set; value_format.py says how it is laid out. Stands before the scripts that need it.

-- As in seen_sets.py, which says why.
local BITMAP_MOVIES, BITMAP_BYTES_PER_MOVIE = 16384, 4

-- Returns the numbers of a seen set, those of a bitmap in no order.
local function seen_numbers(value)
  local numbers = {}
  if value == "" then
    return numbers
  end
  if string.byte(value, 1) == 1 then
    local position = string.find(value, "%Z", 2)
    while position do
      local byte = string.byte(value, position)
      local number = (position - 2) * 8 + 7
      while byte > 0 do
        if byte % 2 == 1 then
          numbers[#numbers + 1] = number
        end
        byte = math.floor(byte / 2)
        number = number - 1
      end
      position = string.find(value, "%Z", position + 1)
    end
    return numbers
  end
  if string.byte(value, 1) ~= 2 then
    refuse_format("a seen set", string.byte(value, 1), "1 and 2")
  end
  local number, delta, scale = 0, 0, 1
  for position = 2, #value do
    local byte = string.byte(value, position)
    delta = delta + (byte % 128) * scale
    scale = scale * 128
    if byte < 128 then
      number = number + delta
      numbers[#numbers + 1] = number
      delta, scale = 0, 1
    end
  end
  return numbers
end

local function as_bitmap(count, num_bytes)
  return num_bytes <= BITMAP_BYTES_PER_MOVIE * count
end

local function pack_bitmap(numbers)
  local out, place, byte = { "\1" }, 0, 0
  for _, number in ipairs(numbers) do
    local own = math.floor(number / 8)
    if own > place then
      out[#out + 1] = string.char(byte) .. string.rep("\0", own - place - 1)
      place, byte = own, 0
    end
    byte = byte + 2 ^ (7 - number % 8)
  end
  out[#out + 1] = string.char(byte)
  return table.concat(out)
end

local function pack_deltas(numbers)
  local out, previous = { "\2" }, 0
  for _, number in ipairs(numbers) do
    local delta = number - previous
    previous = number
    while delta >= 128 do
      out[#out + 1] = string.char(delta % 128 + 128)
      delta = math.floor(delta / 128)
    end
    out[#out + 1] = string.char(delta)
  end
  return table.concat(out)
end

local function write_seen(key, numbers)
  table.sort(numbers)
  local highest = numbers[#numbers]
  local fits = highest < BITMAP_MOVIES and as_bitmap(#numbers, math.floor(highest / 8) + 1)
  redis.call("SET", key, fits and pack_bitmap(numbers) or pack_deltas(numbers))
end

-- Sets bits of a bitmap; returns as add_seen.
local function add_bits(key, numbers)
  local num_new, new = 0, {}
  for _, number in ipairs(numbers) do
    if redis.call("GETBIT", key, number + 8) == 0 then
      redis.call("SETBIT", key, number + 8, 1)
      num_new, new[number] = num_new + 1, true
    end
  end
  -- The byte that names the format has one bit. A new highest number can have made the bitmap too sparse.
  if num_new > 0 and not as_bitmap(redis.call("BITCOUNT", key) - 1, redis.call("STRLEN", key) - 1) then
    write_seen(key, seen_numbers(redis.call("GET", key)))
  end
  return num_new, new
end

-- Adds numbers to a seen set and returns how many were new, and which as the keys of a table.
local function add_seen(key, numbers)
  local highest = 0
  for _, number in ipairs(numbers) do
    highest = math.max(highest, number)
  end
  if highest < BITMAP_MOVIES and redis.call("GETRANGE", key, 0, 0) == "\1" then
    return add_bits(key, numbers)
  end
  local all, num_new, new, known = seen_numbers(redis.call("GET", key) or ""), 0, {}, {}
  for _, number in ipairs(all) do
    known[number] = true
  end
  for _, number in ipairs(numbers) do
    if not known[number] then
      known[number] = true
      all[#all + 1] = number
      num_new, new[number] = num_new + 1, true
    end
  end
  if num_new > 0 then
    write_seen(key, all)
  end
  return num_new, new
end
