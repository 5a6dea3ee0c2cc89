//! What the SQL backends share: rows from columns, and numbers that SQL can hold.

use std::time::SystemTime;

use super::seconds::from_seconds;
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
            due_at: columns.due_at.map(time).transpose()?,
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

fn time(seconds: i64) -> Result<SystemTime, sqlx::Error> {
    from_seconds(seconds)
        .ok_or_else(|| sqlx::Error::Decode("a time that this platform cannot express".into()))
}

pub(super) fn key(partition: &str, slot: &str) -> Result<Key, sqlx::Error> {
    let malformed = |error| sqlx::Error::Decode(format!("{partition:?} {slot:?}: {error}").into());
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
pub(super) fn page(kind: &str, rows: Vec<(Key, Row)>, limit: usize) -> Page {
    let full = rows.len() == limit;
    let next = rows
        .last()
        .filter(|_| full)
        .map(|(key, _)| Cursor::after(kind, key));
    Page { rows, next }
}

/// Partition and slot that a scan goes on after.
pub(super) fn after(key: Option<&Key>) -> (&str, &str) {
    // Every name is greater than the empty one.
    key.map_or(("", ""), |key| (key.partition.as_str(), key.slot.as_str()))
}

/// Rows of a page at most, whatever is asked for: some megabytes.
pub(super) const LONGEST_PAGE: usize = 1000;

pub(super) fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
