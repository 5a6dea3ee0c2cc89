//! Moving house: rows go from one backend to another as they are, sealed.
//!
//! Stop what writes, copy page by page, open the target, verify it page by page, and start what
//! writes on the target. Any step may be done again, from any page.

use serde::Deserialize;

use super::{EncryptedStore, partition};
use crate::backend::{Backend, Change, Cursor, Error, Expect, Key, Row};
use crate::store::{self, ListCursor};

/// What a page of a copy came to.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Copied {
    /// How many rows were written to the target.
    pub copied: usize,
    /// How many stood there already, the same.
    pub present: usize,
    /// Rows for which the target has another version, and keeps it: it was written to by itself,
    /// or the source after an earlier copy. As `partition slot`.
    pub differing: Vec<String>,
    /// Where the next page starts; `None` after the last.
    pub next: Option<ListCursor>,
}

/// What a page of a verification came to.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verified {
    /// How many rows opened.
    pub opened: usize,
    /// Rows that do not open. As `partition slot`.
    pub unreadable: Vec<String>,
    /// Where the next page starts; `None` after the last.
    pub next: Option<ListCursor>,
}

impl<B: Backend> EncryptedStore<B> {
    /// Copies a page of this app's rows to another backend: installations, states and data keys,
    /// sealed as they are.
    ///
    /// A row that stands in the target already is left as it is, so a copy that was interrupted
    /// is simply done again. Copy before the target is opened as a store: opening an empty one
    /// makes a data key of its own.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// # use slack_installs::backend::MemoryBackend;
    /// # use slack_installs::{ClientId, EncryptedStore, LocalKeyProvider, MasterKey};
    /// # let key = || MasterKey::parse(&"42".repeat(32));
    /// # let app = ClientId::new("1.2")?;
    /// # let keys = LocalKeyProvider::new(key()?);
    /// # let store = EncryptedStore::open(MemoryBackend::default(), keys, app.clone()).await?;
    /// let target = MemoryBackend::default();
    /// let (mut next, mut rows) = (None, 0);
    /// loop {
    ///     let page = store.copy_to(&target, next, 500).await?;
    ///     assert!(page.differing.is_empty());
    ///     rows += page.copied + page.present;
    ///     next = page.next;
    ///     if next.is_none() {
    ///         break;
    ///     }
    /// }
    ///
    /// let moved = EncryptedStore::open(target, LocalKeyProvider::new(key()?), app).await?;
    /// let verified = moved.verify(None, usize::MAX).await?;
    /// assert_eq!((verified.opened, verified.unreadable.len()), (rows, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`store::Error::Unavailable`] if either backend does not answer; do the page again.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it has copied a part of the page; do the page again.
    pub async fn copy_to<T: Backend + ?Sized>(
        &self,
        target: &T,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<Copied, store::Error> {
        let (rows, next) = self.page(from, limit).await?;
        let mut page = Copied {
            next,
            ..Copied::default()
        };
        for (key, row) in rows {
            let version = row.version;
            let put = Change::Put {
                slot: key.slot.clone(),
                row,
                expect: Expect::Absent,
            };
            match target.commit(&key.partition, &[put]).await {
                Ok(()) => page.copied += 1,
                // It stands there; or the answer was lost, and then it may.
                Err(Error::Conflict | Error::Unavailable(_)) => {
                    let slots = std::slice::from_ref(&key.slot);
                    let standing = target.read(&key.partition, slots).await?;
                    match standing.into_iter().flatten().next() {
                        Some(standing) if standing.version == version => page.present += 1,
                        Some(_) => page.differing.push(named(&key)),
                        None => {
                            return Err(store::Error::Unavailable(
                                "the target did not take a row".into(),
                            ));
                        }
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(page)
    }

    /// Opens a page of this app's rows, data keys included, and says which do not open.
    ///
    /// # Errors
    ///
    /// [`store::Error::Unavailable`] if the backend or the key provider does not answer.
    ///
    /// # Cancel safety
    ///
    /// Nothing is changed; may be dropped at any point.
    pub async fn verify(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<Verified, store::Error> {
        let (rows, next) = self.page(from, limit).await?;
        let mut page = Verified {
            next,
            ..Verified::default()
        };
        for (key, row) in rows {
            match self.open_any(&key, &row).await {
                Ok(()) => page.opened += 1,
                Err(store::Error::Unreadable(_)) => page.unreadable.push(named(&key)),
                Err(error) => return Err(error),
            }
        }
        Ok(page)
    }

    /// This app's rows of a page, and where the next page starts.
    async fn page(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<(Vec<(Key, Row)>, Option<ListCursor>), store::Error> {
        let from = from.map(|cursor| Cursor(cursor.0));
        // Backends bound a page by memory as well as by `limit`.
        let page = self
            .driver
            .backend()
            .scan(from, limit.min(MAX_PAGE))
            .await?;
        let ours = format!("{}/", self.driver.app());
        let is_ours = |(key, _): &(Key, Row)| key.partition.as_str().starts_with(&ours);
        let rows = page.rows.into_iter().filter(is_ours).collect();
        Ok((rows, page.next.map(|cursor| ListCursor(cursor.0))))
    }

    /// Opens a row as the kind of record that its metadata says it is.
    async fn open_any(&self, key: &Key, row: &Row) -> Result<(), store::Error> {
        if key.partition == partition(self.driver.app(), "keyring") {
            return Ok(self.driver.keys().opens(row).await?);
        }
        let described: Described = serde_json::from_str(row.metadata.as_str())
            .map_err(|_| store::Error::Unreadable("a row's metadata names no kind".into()))?;
        let opened = self
            .driver
            .plaintext(&key.partition, &key.slot, &described.kind, row);
        opened.await.map(drop)
    }
}

/// What every record's metadata says of it.
#[derive(Deserialize)]
struct Described {
    kind: String,
}

fn named(key: &Key) -> String {
    format!("{} {}", key.partition, key.slot)
}

/// A page stays well within memory: rows have up to 320 KiB.
const MAX_PAGE: usize = 1000;
