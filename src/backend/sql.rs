//! What the SQL backends share: rows from columns, and numbers that SQL can hold.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Cursor, Key, Metadata, Page, Partition, Row, Sealed, Slot, Version};

mod kept;

pub(super) use kept::Kept;

/// The columns of a row, as a driver lends them.
pub(super) struct Columns<'a> {
    pub(super) version: &'a [u8],
    pub(super) metadata: &'a str,
    pub(super) sealed: &'a [u8],
    pub(super) due_at: Option<i64>,
}

impl TryFrom<Columns<'_>> for Row {
    type Error = sqlx::Error;

    fn try_from(columns: Columns<'_>) -> Result<Self, sqlx::Error> {
        Ok(Self {
            version: version(columns.version)?,
            metadata: Metadata::new(columns.metadata),
            sealed: Sealed::from_stored(columns.sealed),
            due_at: columns.due_at.map(from_seconds).transpose()?,
        })
    }
}

/// The rows of these slots, of those that were found.
pub(super) fn in_order<'r, C>(
    slots: &[Slot],
    found: &'r [C],
    name: impl Fn(&'r C) -> Result<&'r str, sqlx::Error>,
    row: impl Fn(&'r C) -> Result<Row, sqlx::Error>,
) -> Result<Vec<Option<Row>>, sqlx::Error> {
    // A handful of slots at a time, so a map would cost more than it saves.
    let names: Vec<_> = found.iter().map(name).collect::<Result<_, _>>()?;
    let row = |slot: &Slot| {
        let at = names.iter().position(|name| *name == slot.as_str());
        at.map(|at| row(&found[at])).transpose()
    };
    slots.iter().map(row).collect()
}

pub(super) fn key(partition: &str, slot: &str) -> Result<Key, sqlx::Error> {
    let malformed = |error| sqlx::Error::Decode(Box::new(error));
    Ok(Key {
        partition: Partition::new(partition).map_err(malformed)?,
        slot: Slot::new(slot).map_err(malformed)?,
    })
}

pub(super) fn version(bytes: &[u8]) -> Result<Version, sqlx::Error> {
    let bytes = bytes
        .try_into()
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(Version::from_bytes(bytes))
}

/// A page in the order of keys. A full one has a next.
pub(super) fn page(rows: Vec<(Key, Row)>, limit: usize) -> Page {
    let full = rows.len() == limit;
    let next = rows
        .last()
        .filter(|_| full)
        .map(|(key, _)| Cursor::after(key));
    Page { rows, next }
}

/// Partition and slot that a scan goes on after.
pub(super) fn after(key: Option<&Key>) -> (&str, &str) {
    // Every name is greater than the empty one.
    key.map_or(("", ""), |key| (key.partition.as_str(), key.slot.as_str()))
}

pub(super) fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Whole seconds since 1970, rounded down.
pub(super) fn to_seconds(time: SystemTime) -> i64 {
    let whole = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => whole(since),
        Err(before) => {
            let before = before.duration();
            -whole(before) - i64::from(before.subsec_nanos() > 0)
        }
    }
}

fn from_seconds(seconds: i64) -> Result<SystemTime, sqlx::Error> {
    let span = Duration::from_secs(seconds.unsigned_abs());
    let time = match seconds < 0 {
        true => UNIX_EPOCH.checked_sub(span),
        false => UNIX_EPOCH.checked_add(span),
    };
    time.ok_or_else(|| sqlx::Error::Decode("a time that this platform cannot express".into()))
}
