-- Writes changed movies and moves the catalogue pointer, if it still is where the writer saw it.
--
-- KEYS  1 pointer; 2 movies by number; 3 numbers by version of their last change
-- ARGV  1 the pointer as the writer saw it; 2 the new pointer; 3 the new version; then pairs of number and movie
-- Returns 1, or 0 if somebody else was faster.

if redis.call("GET", KEYS[1]) ~= ARGV[1] then
  return 0
end
for position = 4, #ARGV, 2 do
  redis.call("HSET", KEYS[2], ARGV[position], ARGV[position + 1])
  redis.call("ZADD", KEYS[3], ARGV[3], ARGV[position])
end
if ARGV[2] ~= ARGV[1] then
  redis.call("SET", KEYS[1], ARGV[2])
end
return 1
