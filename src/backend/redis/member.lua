-- Returns the member of a row in the set of due rows: "<lane> <app> <seconds> <partition> <slot>".
-- So one range of members is one queue, earliest first. Returns nil if the row is never due or
-- cannot be parsed.
local function due_member(partition, slot, value)
  if not value or #value < 30 or string.byte(value) ~= 1 then
    return nil
  end
  local lane = string.byte(value, 18)
  if lane == 0 then
    return nil
  end
  local seconds = 0
  for at = 19, 26 do
    seconds = seconds * 256 + string.byte(value, at)
  end
  local app = string.match(partition, '^[^/]*')
  return string.format('%d %s %012.0f %s %s', lane, app, seconds, partition, slot)
end
