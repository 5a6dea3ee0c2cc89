//! What the SQL backends share: rows from columns, and numbers that SQL can hold.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::seconds::from_seconds;
use super::{
    Cursor, Due, Error, Key, Lane, Metadata, Page, Partition, Prefix, Row, Scope, Sealed, Slot,
    Version,
};

mod kept;

pub(super) use kept::Kept;

/// The columns of a row, as a driver lends them.
pub(super) struct Columns<'a> {
    pub(super) version: &'a [u8],
    pub(super) metadata: &'a str,
    pub(super) sealed: &'a [u8],
    pub(super) lane: Option<&'a str>,
    pub(super) due_at: Option<i64>,
}

impl TryFrom<Columns<'_>> for Row {
    type Error = sqlx::Error;

    fn try_from(columns: Columns<'_>) -> Result<Self, sqlx::Error> {
        Ok(Self {
            version: version(columns.version)?,
            metadata: Metadata::new(columns.metadata),
            sealed: Sealed::from_stored(columns.sealed),
            due: due(columns.lane, columns.due_at)?,
        })
    }
}

fn due(lane: Option<&str>, seconds: Option<i64>) -> Result<Option<Due>, sqlx::Error> {
    let malformed = |what: &str| sqlx::Error::Decode(what.into());
    match (lane, seconds) {
        (None, None) => Ok(None),
        (Some(lane), Some(seconds)) => Ok(Some(Due {
            lane: Lane::from_stored(lane).ok_or_else(|| malformed("an unknown lane"))?,
            at: from_seconds(seconds)
                .ok_or_else(|| malformed("a time that this platform cannot express"))?,
        })),
        _ => Err(malformed("a lane without a time, or a time without a lane")),
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

pub(super) fn version(bytes: &[u8]) -> Result<Version, sqlx::Error> {
    let bytes = bytes
        .try_into()
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(Version::from_bytes(bytes))
}

/// The place of a row as the database has it, whether or not the names have our form.
pub(super) struct Place<'a> {
    pub(super) partition: &'a [u8],
    pub(super) slot: &'a [u8],
    pub(super) due_at: Option<i64>,
}

impl Place<'_> {
    fn key(&self) -> Option<Key> {
        Some(Key {
            partition: Partition::new(str::from_utf8(self.partition).ok()?).ok()?,
            slot: Slot::new(str::from_utf8(self.slot).ok()?).ok()?,
        })
    }

    fn text(&self) -> String {
        let [partition, slot] = [self.partition, self.slot].map(String::from_utf8_lossy);
        format!("{partition} {slot}")
    }
}

/// Makes a page of rows in the order of the statement. A full page has a next one.
pub(super) fn page<'c, C>(
    kind: &str,
    order: Order,
    found: &'c [C],
    limit: usize,
    place: impl Fn(&'c C) -> Result<Place<'c>, sqlx::Error>,
    row: impl Fn(&'c C) -> Result<Row, sqlx::Error>,
) -> Result<Page, sqlx::Error> {
    let mut page = Page::default();
    for columns in found {
        let place = place(columns)?;
        match (place.key(), row(columns)) {
            (Some(key), Ok(row)) => page.rows.push((key, row)),
            _ => page.malformed.push(place.text()),
        }
    }
    if let (true, Some(last)) = (found.len() == limit, found.last()) {
        page.next = Some(After::of(&place(last)?, order).cursor(kind));
    }
    Ok(page)
}

/// The order of a page's rows.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Order {
    /// By due time, partition and slot.
    Due,
    /// By partition and slot.
    Key,
}

/// The place after which a page starts. Every name is greater than the empty one.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct After {
    pub(super) due_at: Option<i64>,
    pub(super) partition: Vec<u8>,
    pub(super) slot: Vec<u8>,
}

impl After {
    fn of(place: &Place<'_>, order: Order) -> Self {
        Self {
            due_at: place.due_at.filter(|_| order == Order::Due),
            partition: place.partition.into(),
            slot: place.slot.into(),
        }
    }

    /// Reads a cursor.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] for a cursor of another kind of backend, or of another order.
    pub(super) fn from_cursor(
        kind: &str,
        order: Order,
        cursor: Option<&Cursor>,
    ) -> Result<Self, Error> {
        let Some(cursor) = cursor else {
            return Ok(Self::default());
        };
        let parse = || {
            let mut parts = cursor.0.split(' ');
            let is_ours = parts.next() == Some(kind);
            let due_at = match (parts.next()?, order) {
                (NO_TIME, Order::Key) => None,
                (due_at, Order::Due) => Some(due_at.parse().ok()?),
                _ => return None,
            };
            let after = Self {
                due_at,
                partition: URL_SAFE_NO_PAD.decode(parts.next()?).ok()?,
                slot: URL_SAFE_NO_PAD.decode(parts.next()?).ok()?,
            };
            (is_ours && parts.next().is_none()).then_some(after)
        };
        parse().ok_or_else(|| Error::Malformed("not a cursor of this backend".into()))
    }

    /// Moves to the first row of the scope, if this is before it.
    pub(super) fn within(mut self, scope: &Scope) -> Self {
        let first = match scope {
            Scope::Everything => "",
            Scope::Partition(partition) => partition.as_str(),
            Scope::Prefix(prefix) => prefix.as_str(),
        };
        if self.partition.as_slice() < first.as_bytes() {
            self.partition = first.into();
            self.slot.clear();
        }
        self
    }

    fn cursor(&self, kind: &str) -> Cursor {
        let due_at = self.due_at.map(|due_at| due_at.to_string());
        let due_at = due_at.as_deref().unwrap_or(NO_TIME);
        let [partition, slot] =
            [&self.partition, &self.slot].map(|name| URL_SAFE_NO_PAD.encode(name));
        Cursor(format!("{kind} {due_at} {partition} {slot}"))
    }
}

/// Stands in the cursor of a scan, which has no time.
const NO_TIME: &str = "-";

/// Returns the first text after all texts that begin with this.
pub(super) fn end_of(prefix: &Prefix) -> String {
    let mut end = prefix.as_str().to_owned();
    // Names are visible ASCII, so the next character is ASCII as well.
    let last = end.pop().expect("a prefix is not empty");
    end.push(char::from_u32(u32::from(last) + 1).expect("the next ASCII character"));
    end
}

/// Rows of a page at most, whatever is asked for: some megabytes.
pub(super) const LONGEST_PAGE: usize = 1000;

pub(super) fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
