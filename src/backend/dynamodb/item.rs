//! Conversion of rows and claims to and from items of the table.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use ring::digest::{SHA256, digest};

use crate::backend::seconds::{from_seconds, to_seconds};
use crate::backend::{
    Due, Error, Key, Lane, Metadata, Partition, Queue, Row, Sealed, Slot, Version,
};
use crate::random;

/// An item as the SDK represents it.
pub(super) type Item = HashMap<String, AttributeValue>;

/// The id of one clear of a partition. Each call mints its own, so an id never returns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct ClearId([u8; 16]);

impl ClearId {
    pub(super) fn mint() -> Self {
        Self(random::bytes())
    }

    pub(super) fn value(self) -> AttributeValue {
        AttributeValue::B(Blob::new(self.0))
    }

    /// Returns the id as a set of one element, because only a set can be added to a set.
    pub(super) fn set(self) -> AttributeValue {
        AttributeValue::Bs(vec![Blob::new(self.0)])
    }
}

/// The state of the item [`CLAIM`] in a partition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Claim {
    /// There is no claim; all rows exist.
    None,
    /// A process is marking rows to clear them; all rows still exist.
    Pending(ClearId),
    /// The rows with this mark are cleared; a process is deleting them.
    Done(ClearId),
}

impl Claim {
    pub(super) fn of(item: Option<&Item>) -> Result<Self, Error> {
        let Some(item) = item else {
            return Ok(Self::None);
        };
        let id = ClearId(sixteen(bytes(item, CLEAR_ID)?)?);
        Ok(if item.contains_key(CLEAR_DONE) {
            Self::Done(id)
        } else {
            Self::Pending(id)
        })
    }
}

/// A stored row, with the marks of the processes that tried to clear it.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) row: Row,
    pub(super) marks: Vec<ClearId>,
}

impl Stored {
    pub(super) fn of(item: &Item) -> Result<Self, Error> {
        let row = Row {
            version: version(item)?,
            metadata: Metadata::new(text(item, METADATA)?),
            sealed: Sealed::from_stored(bytes(item, SEALED)?),
            due: due(item)?,
        };
        let marks = marks(item)?;
        Ok(Self { row, marks })
    }

    /// Returns the row, unless it was cleared but not deleted yet.
    pub(super) fn standing(self, claim: Claim) -> Option<Row> {
        match claim {
            Claim::Done(id) if self.marks.contains(&id) => None,
            _ => Some(self.row),
        }
    }
}

/// Returns the item of a row, without marks. The caller must check that the row is not being
/// cleared.
pub(super) fn item(partition: &Partition, slot: &Slot, row: &Row) -> Item {
    let mut item = key(partition, slot.as_str());
    let sealed = AttributeValue::B(Blob::new(row.sealed.as_bytes()));
    item.insert(VERSION.into(), version_value(row.version));
    item.insert(
        METADATA.into(),
        AttributeValue::S(row.metadata.as_str().into()),
    );
    item.insert(SEALED.into(), sealed);
    if let Some(due) = row.due {
        let shard = queue_shard(due.lane, shard(partition, slot), partition.app());
        item.insert(DUE_QUEUE.into(), AttributeValue::S(shard));
        let place = due_key(due, partition, slot);
        item.insert(DUE_KEY.into(), AttributeValue::S(place));
    }
    item
}

/// Returns the item of a pending claim.
pub(super) fn claim_item(partition: &Partition, id: ClearId) -> Item {
    let mut item = key(partition, CLAIM);
    item.insert(CLEAR_ID.into(), id.value());
    item
}

pub(super) fn key(partition: &Partition, name: &str) -> Item {
    HashMap::from([
        (PK.into(), AttributeValue::S(partition.as_str().into())),
        (SK.into(), AttributeValue::S(name.into())),
    ])
}

pub(super) fn key_of(item: &Item) -> Result<Key, Error> {
    Ok(Key {
        partition: partition_of(item)?,
        slot: slot_of(item)?,
    })
}

pub(super) fn partition_of(item: &Item) -> Result<Partition, Error> {
    Partition::new(text(item, PK)?).map_err(|error| malformed(error.to_string()))
}

pub(super) fn is_of(item: &Item, partition: &Partition) -> bool {
    text(item, PK).is_ok_and(|own| own == partition.as_str())
}

pub(super) fn slot_of(item: &Item) -> Result<Slot, Error> {
    Slot::new(text(item, SK)?).map_err(|error| malformed(error.to_string()))
}

pub(super) fn version(item: &Item) -> Result<Version, Error> {
    Ok(Version::from_bytes(sixteen(bytes(item, VERSION)?)?))
}

pub(super) fn version_value(version: Version) -> AttributeValue {
    AttributeValue::B(Blob::new(*version.as_bytes()))
}

pub(super) fn marks(item: &Item) -> Result<Vec<ClearId>, Error> {
    let Some(marks) = item.get(CLEARED_BY) else {
        return Ok(Vec::new());
    };
    let marks = marks
        .as_bs()
        .map_err(|_| malformed(format!("{CLEARED_BY} is not a set of byte strings")))?;
    marks
        .iter()
        .map(|mark| Ok(ClearId(sixteen(mark.as_ref())?)))
        .collect()
}

pub(super) fn text<'a>(item: &'a Item, name: &str) -> Result<&'a str, Error> {
    let value = item.get(name).and_then(|value| value.as_s().ok());
    value
        .map(String::as_str)
        .ok_or_else(|| malformed(format!("{name} is not a string")))
}

/// Returns the shards of a queue: partition keys of the index.
pub(super) fn shards_of(queue: &Queue) -> impl Iterator<Item = String> {
    (0..DUE_SHARDS).map(|shard| queue_shard(queue.lane(), shard, queue.app()))
}

fn queue_shard(lane: Lane, shard: u8, app: &str) -> String {
    format!("{lane} {shard} {app}")
}

/// Returns the sort key of the index. It sorts by time, and it is different for each row.
pub(super) fn due_key(due: Due, partition: &Partition, slot: &Slot) -> String {
    format!("{} {partition} {slot}", due_digits(to_seconds(due.at)))
}

/// Returns seconds as text that sorts like the number. A time before 1970 becomes 1970.
pub(super) fn due_digits(seconds: i64) -> String {
    format!("{:012}", seconds.max(0))
}

fn due(item: &Item) -> Result<Option<Due>, Error> {
    if !item.contains_key(DUE_QUEUE) && !item.contains_key(DUE_KEY) {
        return Ok(None);
    }
    let (queue, key) = (text(item, DUE_QUEUE)?, text(item, DUE_KEY)?);
    let parse = || {
        let (lane, _) = queue.split_once(' ')?;
        let (seconds, _) = key.split_once(' ')?;
        Some(Due {
            lane: Lane::from_stored(lane)?,
            at: from_seconds(seconds.parse().ok()?)?,
        })
    };
    let due = parse().ok_or_else(|| malformed("the due time cannot be parsed".into()))?;
    Ok(Some(due))
}

/// Returns the names in an item as text, even if they are not valid.
pub(super) fn text_of_key(item: &Item) -> String {
    let name = |name| text(item, name).unwrap_or("?");
    format!("{} {}", name(PK), name(SK))
}

pub(super) fn malformed(reason: String) -> Error {
    Error::Malformed(reason.into())
}

/// Returns the shard of the index that lists a row. A row always has the same shard. A hash spreads
/// the rows, so that rows that are due together are not all in one shard.
fn shard(partition: &Partition, slot: &Slot) -> u8 {
    // Names have no spaces, so a space separates them.
    let digest = digest(&SHA256, format!("{partition} {slot}").as_bytes());
    digest.as_ref()[0] % DUE_SHARDS
}

fn bytes<'a>(item: &'a Item, name: &str) -> Result<&'a [u8], Error> {
    let value = item.get(name).and_then(|value| value.as_b().ok());
    value
        .map(AsRef::as_ref)
        .ok_or_else(|| malformed(format!("{name} is not a byte string")))
}

fn sixteen(bytes: &[u8]) -> Result<[u8; 16], Error> {
    bytes
        .try_into()
        .map_err(|_| malformed("an id does not have 16 bytes".into()))
}

/// The sort key of the claim on a partition. No slot can have this name, because it has braces.
pub(super) const CLAIM: &str = "{clear}";

/// The shards of each queue in the index. One shard takes 1000 writes a second; `due` queries all
/// of them.
const DUE_SHARDS: u8 = 16;

// None of these is a reserved word of DynamoDB, so expressions can use them directly.
pub(super) const CLEARED_BY: &str = "cleared_by";
pub(super) const CLEAR_DONE: &str = "clear_done";
pub(super) const CLEAR_ID: &str = "clear_id";
pub(super) const DUE_KEY: &str = "due_key";
pub(super) const DUE_QUEUE: &str = "due_queue";
pub(super) const METADATA: &str = "metadata";
pub(super) const PK: &str = "pk";
pub(super) const SEALED: &str = "sealed";
pub(super) const SK: &str = "sk";
pub(super) const VERSION: &str = "version";
