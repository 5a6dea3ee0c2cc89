//! Stores rows in this process's memory, for tests and for a first try.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;

use super::connect::{ByUrl, ConnectError};
use super::seconds::since_1970;
use super::{
    Backend, Change, Cursor, Due, Error, Expect, Key, Page, Partition, Queue, Row, Scope, Slot,
    page_len,
};
use crate::wording::counted;

/// Stores sealed rows in memory. They are lost when the process ends.
///
/// For tests: with a generated key, it passes the same conformance suite as every other backend.
#[derive(Default)]
pub struct MemoryBackend {
    rows: Mutex<BTreeMap<Key, Stored>>,
}

/// The value of a key.
#[derive(Clone)]
enum Stored {
    /// A row that cannot be parsed. Only its due time is kept.
    #[cfg_attr(
        not(feature = "testing"),
        expect(dead_code, reason = "only tests make one")
    )]
    Malformed(Option<Due>),
    Row(Row),
}

impl Stored {
    fn due(&self) -> Option<Due> {
        match self {
            Self::Malformed(due) => *due,
            Self::Row(row) => row.due,
        }
    }
}

impl MemoryBackend {
    /// Makes a row unparseable, as if another program had written or changed it. The row keeps its
    /// place and its queue.
    ///
    /// # Panics
    ///
    /// If the row does not exist.
    #[cfg(feature = "testing")]
    pub fn spoil(&self, key: &Key) {
        let mut rows = self.rows();
        let stored = rows.get_mut(key).expect("the row exists");
        *stored = Stored::Malformed(stored.due());
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<Key, Stored>> {
        // No code panics while it holds the lock, and a half-done commit is impossible.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryBackend({})", counted(self.rows().len(), "row"))
    }
}

#[async_trait]
impl ByUrl for MemoryBackend {
    const EXAMPLES: &str = "";

    async fn by_url(_: &str) -> Result<Self, ConnectError> {
        Ok(Self::default())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for MemoryBackend {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        let rows = self.rows();
        slots
            .iter()
            .map(|slot| match rows.get(&Key::of(partition, slot)) {
                Some(Stored::Row(row)) => Ok(Some(row.clone())),
                Some(Stored::Malformed(_)) => {
                    let key = Key::of(partition, slot);
                    Err(Error::Malformed(
                        format!("the row {key} cannot be parsed").into(),
                    ))
                }
                None => Ok(None),
            })
            .collect()
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        Change::check(changes)?;
        let mut rows = self.rows();
        let mut conflicts = false;
        for change in changes {
            let current = change
                .slot()
                .and_then(|slot| rows.get(&Key::of(partition, slot)));
            conflicts |= match current {
                // Its version is unknown, so it equals no expected version.
                Some(Stored::Malformed(_)) => change.expects() != Expect::Any,
                Some(Stored::Row(row)) => !change.allows(Some(row.version)),
                None => !change.allows(None),
            };
        }
        if conflicts {
            return Err(Error::Conflict);
        }
        if changes.iter().any(|change| matches!(change, Change::Clear)) {
            rows.retain(|key, _| key.partition != *partition);
        }
        for change in changes {
            match change {
                Change::Put { slot, row, .. } => {
                    rows.insert(Key::of(partition, slot), Stored::Row(row.clone()));
                }
                Change::Delete { slot, .. } => {
                    rows.remove(&Key::of(partition, slot));
                }
                Change::Check { .. } | Change::Clear => {}
            }
        }
        Ok(())
    }

    async fn scan(&self, scope: &Scope, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        let after = from.map(|cursor| cursor.key(KIND)).transpose()?;
        let first = match scope {
            Scope::Partition(partition) => Some(first_of(partition)),
            Scope::Everything | Scope::Prefix(_) => None,
        };
        let start = match (&after, &first) {
            (Some(after), _) => Bound::Excluded(after),
            (None, Some(first)) => Bound::Included(first),
            (None, None) => Bound::Unbounded,
        };
        let rows = self.rows();
        let found = rows
            .range::<Key, _>((start, Bound::Unbounded))
            .skip_while(|(key, _)| !scope.contains(&key.partition))
            .take_while(|(key, _)| scope.contains(&key.partition));
        Ok(page(found, limit, |key, _| Cursor::after(KIND, key)))
    }

    async fn due(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        let after = from.map(|cursor| cursor.due(KIND)).transpose()?;
        let after = after.as_ref().map(|(at, key)| (*at, key));
        let rows = self.rows();
        let mut due: Vec<_> = rows
            .iter()
            .filter(|(key, _)| key.partition.app() == queue.app())
            .filter_map(|(key, stored)| Some((stored.due()?, key, stored)))
            .filter(|(due, _, _)| due.lane == queue.lane() && due.at <= now)
            .map(|(due, key, stored)| ((since_1970(due.at), key), stored))
            .filter(|(place, _)| after.is_none_or(|after| *place > after))
            .collect();
        due.sort_unstable_by_key(|(place, _)| *place);
        let found = due.into_iter().map(|((_, key), stored)| (key, stored));
        Ok(page(found, limit, |key, stored| {
            let at = stored.due().map_or(now, |due| due.at);
            Cursor::after_due(KIND, at, key)
        }))
    }
}

/// Returns the first page of these rows, with the cursor after its last row if there may be more.
fn page<'a>(
    found: impl Iterator<Item = (&'a Key, &'a Stored)>,
    limit: usize,
    after: impl Fn(&Key, &Stored) -> Cursor,
) -> Page {
    let limit = page_len(limit);
    let found: Vec<_> = found.take(limit).collect();
    let last = found.last().filter(|_| found.len() == limit);
    let next = last.map(|(key, stored)| after(key, stored));
    let mut page = Page {
        next,
        ..Page::default()
    };
    for (key, stored) in found {
        match stored {
            Stored::Malformed(_) => page.malformed.push(key.to_string()),
            Stored::Row(row) => page.rows.push((key.clone(), row.clone())),
        }
    }
    page
}

/// Returns the lowest possible key of a partition.
fn first_of(partition: &Partition) -> Key {
    Key::of(partition, &Slot::new("!").expect("`!` is a valid name"))
}

/// The kind of this backend's cursors.
const KIND: &str = "memory";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Metadata, Sealed, Version};

    #[tokio::test]
    async fn a_page_has_a_thousand_rows_at_most() {
        let backend = MemoryBackend::default();
        let partition = Partition::new("app/T1").expect("a plain name");
        let put = |nth| Change::Put {
            slot: Slot::new(format!("user/U{nth}")).expect("a plain name"),
            row: Row {
                version: Version::mint(),
                metadata: Metadata::new("{}"),
                sealed: Sealed::from_stored([7; 100]),
                due: None,
            },
            expect: Expect::Absent,
        };
        let puts: Vec<_> = (0..1001).map(put).collect();
        backend.commit(&partition, &puts).await.expect("new rows");
        let everything = &Scope::Everything;
        let page = backend.scan(everything, None, usize::MAX).await;
        let page = page.expect("a page");
        assert_eq!(page.rows.len(), 1000);
        let page = backend.scan(everything, page.next, usize::MAX).await;
        let page = page.expect("a page");
        assert_eq!((page.rows.len(), page.next), (1, None));
    }
}
