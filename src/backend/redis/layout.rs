//! The keys and the format of rows in Redis.

use std::time::SystemTime;

use ring::digest::{SHA256, digest};

use crate::backend::{
    BoxError, Due, Error, Key, Lane, Metadata, Partition, Queue, Row, Sealed, Version, seconds,
};

/// The names of all keys. The keys of one shard have the same hash tag. So they are in one slot of
/// a cluster, and one script may use them all.
#[derive(Debug)]
pub(super) struct Layout {
    /// `{prefix:5c}`, one for each shard.
    tags: Vec<String>,
}

impl Layout {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            tags: (0..SHARDS)
                .map(|shard| format!("{{{prefix}:{shard:02x}}}"))
                .collect(),
        }
    }

    /// Returns the key of a partition's rows. `shard` must be the partition's shard.
    pub(super) fn rows(&self, shard: usize, partition: &Partition) -> String {
        format!("{}:rows:{partition}", self.tags[shard])
    }

    pub(super) fn names(&self, shard: usize) -> String {
        format!("{}:names", self.tags[shard])
    }

    pub(super) fn due(&self, shard: usize) -> String {
        format!("{}:due", self.tags[shard])
    }

    /// Returns the cluster slot of each shard.
    pub(super) fn cluster_slots(&self) -> Vec<u16> {
        // Redis hashes only the text between the first pair of braces.
        self.tags
            .iter()
            .map(|tag| crc16(&tag.as_bytes()[1..tag.len() - 1]) % 16384)
            .collect()
    }
}

pub(super) fn shard_of(partition: &Partition) -> usize {
    usize::from(digest(&SHA256, partition.as_str().as_bytes()).as_ref()[0]) % SHARDS
}

/// Parses a member of the set of names: a key as text.
pub(super) fn parse_name(name: &[u8]) -> Option<Key> {
    Key::parse(str::from_utf8(name).ok()?)
}

/// Returns a row's member in the set of due rows, as `member.lua` makes it: the text of its queue,
/// 12 digits of seconds, and its name. So the members of each queue are sorted by time.
pub(super) fn due_member(key: &Key, due: Due) -> String {
    let app = key.partition.app();
    let (lane, seconds) = (code(due.lane), seconds::since_1970(due.at));
    format!("{lane} {app} {seconds:012} {key}")
}

/// Returns the text that all members of a queue begin with.
pub(super) fn queue_start(queue: &Queue) -> String {
    format!("{} {} ", code(queue.lane()), queue.app())
}

/// Returns the row that a member of this queue names.
pub(super) fn parse_due_member(queue_start: &str, member: &[u8]) -> Option<Key> {
    let rest = member.strip_prefix(queue_start.as_bytes())?;
    let (_seconds, name) = str::from_utf8(rest).ok()?.split_once(' ')?;
    parse_name(name.as_bytes())
}

/// Returns the number of a lane in a row's header and in members. It never changes.
fn code(lane: Lane) -> u8 {
    match lane {
        Lane::Refresh => 1,
        Lane::Departure => 2,
        Lane::Notice => 3,
        Lane::State => 4,
        Lane::Handled => 5,
        Lane::Audit => 6,
    }
}

fn lane(stored: u8) -> Option<Lane> {
    Lane::ALL.into_iter().find(|lane| code(*lane) == stored)
}

/// Encodes a row as one value, so that it is written, read and compared as a whole:
///
/// ```text
/// 1 byte    format, 1
/// 16 bytes  version
/// 1 byte    the lane that it waits in, or 0 if it is never due
/// 8 bytes   due_at, seconds since 1970; big-endian, like all numbers
/// 4 bytes   length of the metadata
/// …         metadata, sealed
/// ```
pub(super) fn encode(row: &Row) -> Vec<u8> {
    let metadata = row.metadata.as_str().as_bytes();
    let length = u32::try_from(metadata.len()).expect("metadata is far below 4 GiB");
    let sealed = row.sealed.as_bytes();
    let mut value = Vec::with_capacity(HEADER_LEN + metadata.len() + sealed.len());
    value.push(FORMAT);
    value.extend_from_slice(row.version.as_bytes());
    value.push(row.due.map_or(0, |due| code(due.lane)));
    value.extend_from_slice(
        &row.due
            .map_or(0, |due| seconds::since_1970(due.at))
            .to_be_bytes(),
    );
    value.extend_from_slice(&length.to_be_bytes());
    value.extend_from_slice(metadata);
    value.extend_from_slice(sealed);
    value
}

pub(super) fn decode(value: &[u8]) -> Result<Row, Error> {
    let parse = || {
        let (&format, rest) = value.split_first()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (&waits_in, rest) = rest.split_first()?;
        let (due_at, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (metadata, sealed) = rest.split_at_checked(length)?;
        let due = match waits_in {
            0 => None,
            waits_in => Some(Due {
                lane: lane(waits_in)?,
                at: from_seconds(u64::from_be_bytes(*due_at))?,
            }),
        };
        (format == FORMAT).then_some(Row {
            version: Version::from_bytes(*version),
            metadata: Metadata::new(str::from_utf8(metadata).ok()?),
            sealed: Sealed::from_stored(sealed),
            due,
        })
    };
    parse().ok_or_else(|| malformed("a value in Redis is not a valid row"))
}

fn from_seconds(stored: u64) -> Option<SystemTime> {
    seconds::from_seconds(i64::try_from(stored).ok()?)
}

pub(super) fn malformed(cause: impl Into<BoxError>) -> Error {
    Error::Malformed(cause.into())
}

/// Computes CRC-16/XMODEM, by which Redis Cluster maps keys to slots.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }
        })
    })
}

/// The number of shards. It can never change, because a partition's shard is part of its key. With
/// 128 shards, each of 16 masters in a cluster serves eight. With 100,000 tenants, a shard has
/// about 800, so a slot moves to another node in well under a second. Finding due rows takes 128
/// short commands.
pub(super) const SHARDS: usize = 128;

const FORMAT: u8 = 1;

/// `commit.lua` and `member.lua` also use this length.
const HEADER_LEN: usize = 30;

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn keys_of_one_partition_stand_in_the_slot_that_redis_computes() {
        let layout = Layout::new("slack-installs");
        let partition = Partition::new("app/T1").expect("a plain name");
        let shard = shard_of(&partition);
        // All versions store these names, so they must not change.
        assert_eq!(
            layout.rows(shard, &partition),
            "{slack-installs:34}:rows:app/T1"
        );
        assert_eq!(layout.names(shard), "{slack-installs:34}:names");
        assert_eq!(layout.due(shard), "{slack-installs:34}:due");
        // The example of the cluster specification.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(layout.cluster_slots().len(), SHARDS);
    }

    #[test]
    fn a_row_comes_back_and_a_cut_one_does_not() {
        let row = Row {
            version: Version::from_bytes(*b"0123456789abcdef"),
            metadata: Metadata::new("{\"ä\": 1}"),
            sealed: Sealed::from_stored([&b"SLE1"[..], &[7; 120]].concat()),
            due: Some(Due {
                lane: Lane::Audit,
                at: UNIX_EPOCH + Duration::from_secs(253_402_300_799),
            }),
        };
        let value = encode(&row);
        assert_eq!(decode(&value).expect("the value is a valid row"), row);
        for length in 0..HEADER_LEN + row.metadata.as_str().len() {
            assert!(decode(&value[..length]).is_err(), "cut to {length} bytes");
        }
        let other_format = [&[FORMAT + 1], &value[1..]].concat();
        assert!(decode(&other_format).is_err());
        for lane in [7, u8::MAX] {
            let other_lane = [&value[..17], &[lane], &value[18..]].concat();
            assert!(decode(&other_lane).is_err(), "lane {lane}");
        }
    }
}
