-- Applies one commit: checks every expectation, then writes. Redis runs nothing else meanwhile.
--
-- KEYS  rows, a hash; names and due, the sorted sets of its shard
-- ARGV  partition, then five for each change: what, slot, expected, value, due
--         what      check, clear, delete or put
--         expected  '*' for any row or none, '' for no row, else a version of 16 bytes
--         due       the member of the new row in the set of due rows, or ''
--
-- Returns 1 if it wrote, 0 if an expectation does not hold, -1 if a row cannot be parsed.

local rows, names, due = KEYS[1], KEYS[2], KEYS[3]
local partition = ARGV[1]

-- A key of another type fails here. After the first write there must be no error, because Redis
-- does not undo the writes of a script.
redis.call('HLEN', rows)
redis.call('ZCARD', names)
redis.call('ZCARD', due)

for at = 2, #ARGV, 5 do
  local slot, expected = ARGV[at + 1], ARGV[at + 2]
  if expected ~= '*' then
    local current = redis.call('HGET', rows, slot)
    local version = ''
    if current then
      if #current < 30 or string.byte(current) ~= 1 then
        return -1
      end
      version = string.sub(current, 2, 17)
    end
    if version ~= expected then
      return 0
    end
  end
end

-- Collects what to remove. A row that is put is overwritten instead; only its old member in the set
-- of due rows is removed, if the member changes.
local puts, gone = {}, {}
local gone_slots, gone_names, gone_due = {}, {}, {}
local function forget(index, member, list)
  if member and redis.call('ZSCORE', index, member) then
    list[#list + 1] = member
  end
end
local function remove_row(slot, value)
  if not gone[slot] then
    gone[slot] = true
    gone_slots[#gone_slots + 1] = slot
    forget(names, partition .. ' ' .. slot, gone_names)
    forget(due, due_member(partition, slot, value), gone_due)
  end
end
for at = 2, #ARGV, 5 do
  local what, slot = ARGV[at], ARGV[at + 1]
  if what == 'put' then
    puts[slot] = true
    local old = due_member(partition, slot, redis.call('HGET', rows, slot))
    if old ~= ARGV[at + 4] then
      forget(due, old, gone_due)
    end
  elseif what == 'delete' then
    local value = redis.call('HGET', rows, slot)
    if value then
      remove_row(slot, value)
    end
  end
end
for at = 2, #ARGV, 5 do
  if ARGV[at] == 'clear' then
    local all = redis.call('HGETALL', rows)
    for field = 1, #all, 2 do
      if not puts[all[field]] then
        remove_row(all[field], all[field + 1])
      end
    end
  end
end

-- Writes from here on. While a slot of a cluster moves to another node, a key that a script has
-- emptied is "not local" for the rest of the script, which then fails half done. So additions come
-- first, and a key is not used again after its last member is removed.
for at = 2, #ARGV, 5 do
  if ARGV[at] == 'put' then
    local slot = ARGV[at + 1]
    redis.call('HSET', rows, slot, ARGV[at + 3])
    redis.call('ZADD', names, 0, partition .. ' ' .. slot)
    if ARGV[at + 4] ~= '' then
      redis.call('ZADD', due, 0, ARGV[at + 4])
    end
  end
end

local function remove(command, key, members)
  -- Lua can pass only some thousand arguments.
  for from = 1, #members, 1000 do
    redis.call(command, key, unpack(members, from, math.min(from + 999, #members)))
  end
end
remove('HDEL', rows, gone_slots)
remove('ZREM', names, gone_names)
remove('ZREM', due, gone_due)

return 1
