-- Removes names without rows from the set of names, and outdated members from the set of due rows.
-- Commits keep both sets up to date, but a server that evicts keys does not.
--
-- KEYS  rows, a hash; names and due, the sorted sets of its shard
-- ARGV  partition, then two for each row: slot, and its member in the set of due rows, or ''
local partition = ARGV[1]
for at = 2, #ARGV, 2 do
  local slot, member = ARGV[at], ARGV[at + 1]
  local value = redis.call('HGET', KEYS[1], slot)
  if not value then
    redis.call('ZREM', KEYS[2], partition .. ' ' .. slot)
  end
  if member ~= '' and member ~= due_member(partition, slot, value) then
    redis.call('ZREM', KEYS[3], member)
  end
end
