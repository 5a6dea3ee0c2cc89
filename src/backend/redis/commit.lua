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

-- What is to be removed, of what stands. A row that is put is overwritten instead.
local puts, gone = {}, {}
for at = 2, #ARGV, 5 do
  if ARGV[at] == 'put' then
    puts[ARGV[at + 1]] = true
  elseif ARGV[at] == 'delete' and redis.call('HEXISTS', rows, ARGV[at + 1]) == 1 then
    gone[ARGV[at + 1]] = true
  end
end
for at = 2, #ARGV, 5 do
  if ARGV[at] == 'clear' then
    for _, slot in ipairs(redis.call('HKEYS', rows)) do
      gone[slot] = not puts[slot] or nil
    end
  end
end
local gone_slots, gone_names, gone_due = {}, {}, {}
local function forget(slot, index, list)
  local name = partition .. ' ' .. slot
  if redis.call('ZSCORE', index, name) then
    list[#list + 1] = name
  end
end
for slot in pairs(gone) do
  gone_slots[#gone_slots + 1] = slot
  forget(slot, names, gone_names)
  forget(slot, due, gone_due)
end
for at = 2, #ARGV, 5 do
  if ARGV[at] == 'put' and ARGV[at + 4] == '' then
    forget(ARGV[at + 1], due, gone_due)
  end
end

-- From here on things are written. While a slot of a cluster moves away, a key that a script has
-- emptied is "not local" to the rest of the script, which fails half done. So all that is added
-- comes first, and a key is not touched again once its last member is removed.
for at = 2, #ARGV, 5 do
  if ARGV[at] == 'put' then
    local slot = ARGV[at + 1]
    local name = partition .. ' ' .. slot
    redis.call('HSET', rows, slot, ARGV[at + 3])
    redis.call('ZADD', names, 0, name)
    if ARGV[at + 4] ~= '' then
      redis.call('ZADD', due, ARGV[at + 4], name)
    end
  end
end

local function remove(command, key, members)
  -- Lua passes some thousand arguments at most.
  for from = 1, #members, 1000 do
    redis.call(command, key, unpack(members, from, math.min(from + 999, #members)))
  end
end
remove('HDEL', rows, gone_slots)
remove('ZREM', names, gone_names)
remove('ZREM', due, gone_due)

return 1
