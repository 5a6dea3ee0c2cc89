//! Code that the SQL backends share: connections, rows from columns, pages and cursors.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sqlx::{ColumnIndex, Decode, Type};

use super::seconds::from_seconds;
use super::{
    Cursor, Due, Error, Key, Lane, Metadata, Page, Partition, Prefix, Row, Scope, Sealed, Slot,
    Version,
};

mod pool;
mod present;

pub(super) use pool::{Limits, Pool, Source};
pub(super) use present::Missing;
#[cfg(test)]
pub(super) use present::check;

/// Statements that read one, two and three slots, the usual numbers in a request. The arguments are
/// the macro of a statement that reads one slot, and the slots' parameters.
macro_rules! read_few {
    ($read_slot:ident, $first:literal, $second:literal, $third:literal) => {
        [
            $read_slot!($first),
            concat!($read_slot!($first), " UNION ALL ", $read_slot!($second)),
            concat!(
                $read_slot!($first),
                " UNION ALL ",
                $read_slot!($second),
                " UNION ALL ",
                $read_slot!($third)
            ),
        ]
    };
}

pub(super) use read_few;

/// A row as the driver returns it. Its columns are numbered.
pub(super) trait Columns {
    /// Returns the bytes of a column of any type.
    fn bytes(&self, at: usize) -> Result<&[u8], sqlx::Error>;
    fn text(&self, at: usize) -> Result<Option<&str>, sqlx::Error>;
    fn number(&self, at: usize) -> Result<Option<i64>, sqlx::Error>;
}

impl<R: sqlx::Row> Columns for R
where
    usize: ColumnIndex<R>,
    for<'r> &'r [u8]: Decode<'r, R::Database>,
    for<'r> &'r str: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
{
    fn bytes(&self, at: usize) -> Result<&[u8], sqlx::Error> {
        self.try_get_unchecked(at)
    }

    fn text(&self, at: usize) -> Result<Option<&str>, sqlx::Error> {
        self.try_get(at)
    }

    fn number(&self, at: usize) -> Result<Option<i64>, sqlx::Error> {
        self.try_get(at)
    }
}

/// Returns the row whose columns begin at `first`.
fn row(columns: &impl Columns, first: usize) -> Result<Row, sqlx::Error> {
    Ok(Row {
        version: version(columns.bytes(first)?)?,
        metadata: Metadata::new(
            columns
                .text(first + 1)?
                .ok_or_else(|| malformed("the row has no metadata"))?,
        ),
        sealed: Sealed::from_stored(columns.bytes(first + 2)?),
        due: due(columns.text(first + 3)?, columns.number(first + 4)?)?,
    })
}

fn due(lane: Option<&str>, seconds: Option<i64>) -> Result<Option<Due>, sqlx::Error> {
    match (lane, seconds) {
        (None, None) => Ok(None),
        (Some(lane), Some(seconds)) => Ok(Some(Due {
            lane: Lane::from_stored(lane).ok_or_else(|| malformed("the row's lane is unknown"))?,
            at: from_seconds(seconds)
                .ok_or_else(|| malformed("the row's due time is out of range"))?,
        })),
        _ => Err(malformed("the row has only one of lane and due time")),
    }
}

fn malformed(what: &str) -> sqlx::Error {
    sqlx::Error::Decode(what.into())
}

/// Maps a driver's error. Errors that are not known to be permanent are transient.
pub(super) fn failed(error: sqlx::Error, is_permanent: impl Fn(&str) -> bool) -> Error {
    let permanent = match &error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::Encode(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_permanent(&code)),
        _ => false,
    };
    if permanent {
        Error::Malformed(error.into())
    } else {
        Error::Unavailable(error.into())
    }
}

/// Returns the rows of these slots, in order, from the rows that were found. Their columns begin
/// with the slot.
pub(super) fn in_order(
    slots: &[Slot],
    found: &[impl Columns],
) -> Result<Vec<Option<Row>>, sqlx::Error> {
    // There are few slots at a time, so a map would cost more than it saves.
    let names = found.iter().map(|columns| columns.text(0));
    let names: Vec<_> = names.collect::<Result<_, _>>()?;
    let find = |slot: &Slot| {
        let at = names.iter().position(|name| *name == Some(slot.as_str()));
        at.map(|at| row(&found[at], 1)).transpose()
    };
    slots.iter().map(find).collect()
}

pub(super) fn version(bytes: &[u8]) -> Result<Version, sqlx::Error> {
    let bytes = bytes
        .try_into()
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(Version::from_bytes(bytes))
}

/// The place of a row as stored, even if the names are not valid.
struct Place<'a> {
    partition: &'a [u8],
    slot: &'a [u8],
    due_at: Option<i64>,
}

impl<'a> Place<'a> {
    /// Reads the place from the first two columns and the last.
    fn of(columns: &'a impl Columns) -> Result<Self, sqlx::Error> {
        Ok(Self {
            partition: columns.bytes(0)?,
            slot: columns.bytes(1)?,
            due_at: columns.number(6)?,
        })
    }

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

/// Returns a page of rows, which must be in the statement's order. Their columns begin with the
/// names. A full page has a next page.
pub(super) fn page(
    kind: &str,
    order: Order,
    found: &[impl Columns],
    limit: usize,
) -> Result<Page, sqlx::Error> {
    let mut page = Page::default();
    for columns in found {
        let place = Place::of(columns)?;
        match (place.key(), row(columns, 2)) {
            (Some(key), Ok(row)) => page.rows.push((key, row)),
            _ => page.malformed.push(place.text()),
        }
    }
    if let (true, Some(last)) = (found.len() == limit, found.last()) {
        page.next = Some(After::of(&Place::of(last)?, order).cursor(kind));
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

/// The place after which a page starts. The default is before all rows, because every name is
/// greater than the empty one.
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

    /// Parses a cursor.
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
        parse()
            .ok_or_else(|| Error::Malformed("the cursor is not from this kind of backend".into()))
    }

    /// Moves the place to the start of the scope, if it is before it.
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

#[cfg(any(test, fuzzing))]
/// Parses any cursor, for the fuzz target.
pub(super) fn fuzz_cursor(cursor: &Cursor) {
    for order in [Order::Key, Order::Due] {
        if let Ok(after) = After::from_cursor("sqlite", order, Some(cursor)) {
            let again = After::from_cursor("sqlite", order, Some(&after.cursor("sqlite")));
            let again = again.expect("our own cursor");
            assert_eq!(again.partition, after.partition);
            drop(after.within(&Scope::Everything));
        }
    }
}

/// Replaces the time in the cursor of a scan.
const NO_TIME: &str = "-";

/// Returns the first text after all texts that begin with this.
pub(super) fn end_of(prefix: &Prefix) -> String {
    let mut end = prefix.as_str().to_owned();
    // Names are visible ASCII, so the next character is also ASCII.
    let last = end.pop().expect("a prefix is not empty");
    end.push(char::from_u32(u32::from(last) + 1).expect("the next ASCII character"));
    end
}

/// The most rows of a page, even if more are requested: some megabytes.
pub(super) const LONGEST_PAGE: usize = 1000;

pub(super) fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
