//! Rows in this process's memory: for tests, and for trying things out.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;

use super::{Backend, Change, Cursor, Error, Key, Page, Partition, Row, Slot};

/// Keeps rows in memory; they end with the process. Sealed all the same.
///
/// Made for tests: with a generated key it stands in for any database, and passes the same
/// conformance suite.
#[derive(Default)]
pub struct MemoryBackend {
    rows: Mutex<BTreeMap<Key, Row>>,
}

impl MemoryBackend {
    fn rows(&self) -> MutexGuard<'_, BTreeMap<Key, Row>> {
        // No code panics while it holds the lock, and a half-done commit is impossible anyway.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryBackend({} rows)", self.rows().len())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for MemoryBackend {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        let rows = self.rows();
        Ok(slots
            .iter()
            .map(|slot| rows.get(&key(partition, slot)).cloned())
            .collect())
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        Change::check(changes)?;
        let mut rows = self.rows();
        let allowed = |change: &Change| {
            let standing = change
                .slot()
                .and_then(|slot| rows.get(&key(partition, slot)));
            change.allows(standing.map(|row| row.version))
        };
        if !changes.iter().all(allowed) {
            return Err(Error::Conflict);
        }
        if changes.iter().any(|change| matches!(change, Change::Clear)) {
            rows.retain(|key, _| key.partition != *partition);
        }
        for change in changes {
            match change {
                Change::Put { slot, row, .. } => {
                    rows.insert(key(partition, slot), row.clone());
                }
                Change::Delete { slot, .. } => {
                    rows.remove(&key(partition, slot));
                }
                Change::Clear => {}
            }
        }
        Ok(())
    }

    async fn scan(&self, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        let limit = limit.clamp(1, LONGEST_PAGE);
        let after = from.map(|cursor| cursor.key(KIND)).transpose()?;
        let start = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let rows: Vec<_> = self
            .rows()
            .range::<Key, _>((start, Bound::Unbounded))
            .take(limit)
            .map(|(key, row)| (key.clone(), row.clone()))
            .collect();
        let full = rows.len() == limit;
        let next = rows
            .last()
            .filter(|_| full)
            .map(|(key, _)| Cursor::after(KIND, key));
        Ok(Page { rows, next })
    }

    async fn due(&self, now: SystemTime, limit: usize) -> Result<Vec<(Key, Row)>, Error> {
        let is_due = |row: &Row| row.due_at.is_some_and(|due_at| due_at <= now);
        let mut due: Vec<_> = self
            .rows()
            .iter()
            .filter(|(_, row)| is_due(row))
            .map(|(key, row)| (key.clone(), row.clone()))
            .collect();
        due.sort_by_key(|(_, row)| row.due_at);
        due.truncate(limit);
        Ok(due)
    }
}

fn key(partition: &Partition, slot: &Slot) -> Key {
    Key {
        partition: partition.clone(),
        slot: slot.clone(),
    }
}

/// In its cursors.
const KIND: &str = "memory";

/// Rows of a page at most, as in the databases that this stands in for.
const LONGEST_PAGE: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Expect, Metadata, Sealed, Version};

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
                due_at: None,
            },
            expect: Expect::Absent,
        };
        let puts: Vec<_> = (0..1001).map(put).collect();
        backend.commit(&partition, &puts).await.expect("new rows");
        let page = backend.scan(None, usize::MAX).await.expect("a page");
        assert_eq!(page.rows.len(), 1000);
        let page = backend.scan(page.next, usize::MAX).await.expect("a page");
        assert_eq!((page.rows.len(), page.next), (1, None));
    }
}
