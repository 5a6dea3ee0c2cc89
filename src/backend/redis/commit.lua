-- One commit: judges every expectation, then writes. Redis runs nothing else meanwhile.
--
-- KEYS  rows, a hash; names and due, the sorted sets of its shard
-- ARGV  partition, then five for each change: what, slot, expected, value, due
--         what      put, delete or clear
--         expected  '*' for whatever stands, '' for nothing, else a version of 16 bytes
--         due       seconds since 1970, or ''
--
-- Answers 1 if it wrote, 0 if a row was not as expected, -1 if a row is not one of ours.

local rows, names, due = KEYS[1], KEYS[2], KEYS[3]
local partition = ARGV[1]

-- A key of another type fails here: after the first write there must be no error, since Redis
-- does not undo what a script has written.
redis.call('HLEN', rows)
redis.call('ZCARD', names)
redis.call('ZCARD', due)

for at = 2, #ARGV, 5 do
  local slot, expected = ARGV[at + 1], ARGV[at + 2]
  if expected ~= '*' then
    local standing = redis.call('HGET', rows, slot)
    local version = ''
    if standing then
      if #standing < 30 or string.byte(standing) ~= 1 then
        return -1
      end
      version = string.sub(standing, 2, 17)
    end
    if version ~= expected then
      return 0
    end
  end
end

-- In whatever order the changes are given, rows put beside a clear stand.
for at = 2, #ARGV, 5 do
  if ARGV[at] == 'clear' then
    for _, slot in ipairs(redis.call('HKEYS', rows)) do
      local name = partition .. ' ' .. slot
      redis.call('ZREM', names, name)
      redis.call('ZREM', due, name)
    end
    redis.call('UNLINK', rows)
  end
end

for at = 2, #ARGV, 5 do
  local what, slot = ARGV[at], ARGV[at + 1]
  local name = partition .. ' ' .. slot
  if what == 'put' then
    redis.call('HSET', rows, slot, ARGV[at + 3])
    redis.call('ZADD', names, 0, name)
    if ARGV[at + 4] == '' then
      redis.call('ZREM', due, name)
    else
      redis.call('ZADD', due, ARGV[at + 4], name)
    end
  elseif what == 'delete' then
    redis.call('HDEL', rows, slot)
    redis.call('ZREM', names, name)
    redis.call('ZREM', due, name)
  end
end

return 1
