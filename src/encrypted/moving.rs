//! Moving house: rows go from one backend to another as they are, sealed.
//!
//! A note in the target's keyring says that a copy is under way. While it stands, the target does
//! not open as a store, so whatever it has of this app came from a copy, and a later pass may
//! replace and remove it.

use super::commit::commit;
use super::keys::{copying, has_rows, primary_slot};
use super::{EncryptedStore, KeyringError, record};
use crate::backend::{Backend, Change, Due, Error, Expect, Key, Row, Version};
use crate::clock::{from_epoch, to_epoch};
use crate::store::{self, ListCursor};

/// What a page of a copy came to.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Copied {
    /// How many rows were written where none stood.
    pub copied: usize,
    /// How many stood there already, the same to the byte.
    pub present: usize,
    /// How many stood there as they were at an earlier pass, and were replaced.
    pub replaced: usize,
    /// Rows that the target does not take, and why: beyond what the contract of
    /// [`Backend`] asks for, they are too large for it, say. As `partition slot: reason`. A copy
    /// with such rows does not have them.
    pub refused: Vec<String>,
    /// Where the next page starts; `None` after the last.
    pub next: Option<ListCursor>,
}

/// What a page of a pruning came to.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Pruned {
    /// How many rows of the target were looked for in the source, and stand there.
    pub kept: usize,
    /// How many are gone from the source, and were removed.
    pub removed: usize,
    /// Rows of the target that cannot be parsed. They were left.
    pub malformed: Vec<String>,
    /// Where the next page starts; `None` after the last.
    pub next: Option<ListCursor>,
}

/// What a page of a verification came to.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// How many rows opened.
    pub opened: usize,
    /// Rows that do not open, or that cannot be parsed. As `partition slot`.
    pub unreadable: Vec<String>,
    /// Where the next page starts; `None` after the last.
    pub next: Option<ListCursor>,
}

impl<B: Backend> EncryptedStore<B> {
    /// Copies a page of this app's rows to another backend: installations, states and data keys,
    /// sealed as they are, to the byte.
    ///
    /// # How to move
    ///
    /// 1. Copy all pages, once or more often, while the app runs. The target does not open as a
    ///    store meanwhile ([`OpenError::Copying`](KeyringError::Copying)).
    /// 2. Stop every process of the app, after
    ///    [`TokenRotator::shutdown`](crate::TokenRotator::shutdown): a token that is refreshed
    ///    from here on would stay behind.
    /// 3. Copy all pages once more: rows that moved meanwhile are replaced. Then
    ///    [`prune`](Self::prune) all pages: rows that are gone are removed, or the target would
    ///    bring back who was uninstalled during the copy.
    /// 4. [`finish_copy`](Self::finish_copy), open the target, [`verify`](Self::verify) all pages
    ///    and compare the count, and start the app on the target. Never start it on the source
    ///    again: both would spend the same refresh tokens.
    ///
    /// With the app stopped from the beginning, step 3 finds nothing to do. A pass that was
    /// interrupted goes on from its last page, or from the first: what is there is left as it is.
    /// A lease that a killed process has left behind is copied as it is, and lapses.
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
    ///     assert!(page.refused.is_empty());
    ///     rows += page.copied + page.present + page.replaced;
    ///     next = page.next;
    ///     if next.is_none() {
    ///         break;
    ///     }
    /// }
    /// while let Some(more) = store.prune(&target, next, 500).await?.next {
    ///     next = Some(more);
    /// }
    /// store.finish_copy(&target).await?;
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
    /// [`KeyringError::InUse`] if the target is a store of this app already. Nothing is written
    /// then.
    /// [`KeyringError::Backend`] if either backend does not answer; do the page again.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it has copied a part of the page; do the page again.
    pub async fn copy_to<T: Backend + ?Sized>(
        &self,
        target: &T,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<Copied, KeyringError> {
        self.begin_copy(target).await?;
        let (rows, malformed, next) = self.page(self.backend(), from, limit).await?;
        let refused = malformed.iter();
        let refused = refused.map(|key| format!("{key}: it cannot be parsed"));
        let mut page = Copied {
            refused: refused.collect(),
            next,
            ..Copied::default()
        };
        for (key, row) in rows {
            let is_storable = |due: Due| from_epoch(to_epoch(due.at)) == due.at;
            if !row.due.is_none_or(is_storable) {
                let reason = "its due time is not in whole seconds of 1970 to 9999";
                page.refused.push(format!("{key}: {reason}"));
                continue;
            }
            match carry(target, &key, row).await {
                Ok(Carried::Copied) => page.copied += 1,
                Ok(Carried::Present) => page.present += 1,
                Ok(Carried::Replaced) => page.replaced += 1,
                Err(Error::Malformed(reason)) => page.refused.push(format!("{key}: {reason}")),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(page)
    }

    /// Removes a page of what an earlier pass of [`copy_to`](Self::copy_to) has copied and is gone
    /// from this store. The pages are the target's.
    ///
    /// # Errors
    ///
    /// [`KeyringError::NotCopied`] if no copy into the target is in progress. Nothing is deleted
    /// then.
    /// [`KeyringError::Backend`] if either backend does not answer; do the page again.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it has removed a part of the page; do the page again.
    pub async fn prune<T: Backend + ?Sized>(
        &self,
        target: &T,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<Pruned, KeyringError> {
        let [note, _] = self.keyring_of(target).await?;
        if !self.is_ours(note.as_ref()).await? {
            return Err(KeyringError::NotCopied);
        }
        let (rows, malformed, next) = self.page(target, from, limit).await?;
        let mut page = Pruned {
            malformed,
            next,
            ..Pruned::default()
        };
        for (key, row) in rows {
            let slots = std::slice::from_ref(&key.slot);
            let standing = self.backend().read(&key.partition, slots).await?;
            if standing.iter().any(Option::is_some) {
                page.kept += 1;
                continue;
            }
            let delete = Change::Delete {
                slot: key.slot,
                only: Some(row.version),
            };
            target.commit(&key.partition, &[delete]).await?;
            page.removed += 1;
        }
        Ok(page)
    }

    /// Ends a copy: from now on the target opens as a store, and is not copied into again.
    ///
    /// # Errors
    ///
    /// [`KeyringError::NotCopied`] if the target has not this store's data keys.
    /// [`KeyringError::Backend`] if a backend does not answer; do it again.
    ///
    /// # Cancel safety
    ///
    /// Done or not done.
    pub async fn finish_copy<T: Backend + ?Sized>(&self, target: &T) -> Result<(), KeyringError> {
        let [note, primary] = self.keyring_of(target).await?;
        let [_, ours] = self.keyring_of(self.backend()).await?;
        if note.is_none() && self.is_ours(primary.as_ref()).await? {
            // It was finished before.
            return Ok(());
        }
        if primary != ours || !self.is_ours(note.as_ref()).await? {
            return Err(KeyringError::NotCopied);
        }
        let delete = Change::Delete {
            slot: copying(),
            only: None,
        };
        let keyring = self.driver.app.keyring();
        Ok(target.commit(&keyring, &[delete]).await?)
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
    ) -> Result<VerifyReport, store::Error> {
        let (rows, malformed, next) = self.page(self.backend(), from, limit).await?;
        let mut page = VerifyReport {
            unreadable: malformed,
            next,
            ..VerifyReport::default()
        };
        for (key, row) in rows {
            match self.open_any(&key, &row).await {
                Ok(()) => page.opened += 1,
                Err(store::Error::Unreadable(_)) => page.unreadable.push(key.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(page)
    }

    /// This app's rows of a page, those that cannot be parsed, and where the next page starts.
    async fn page<T: Backend + ?Sized>(
        &self,
        backend: &T,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<AppPage, Error> {
        let app = &self.driver.app;
        // Backends bound a page by memory as well as by `limit`.
        let limit = limit.min(MAX_PAGE);
        let from = from.map(ListCursor::into);
        let mut page = backend.scan(&app.named(""), from, limit).await?;
        let (keyring, note) = (app.keyring(), copying());
        page.rows
            .retain(|(key, _)| key.partition != keyring || key.slot != note);
        Ok((page.rows, page.malformed, page.next.map(ListCursor::from)))
    }

    /// Notes in the target that a copy is under way, if it has nothing of this app.
    async fn begin_copy<T: Backend + ?Sized>(&self, target: &T) -> Result<(), KeyringError> {
        let app = &self.driver.app;
        let [note, _] = self.keyring_of(target).await?;
        if self.is_ours(note.as_ref()).await? {
            return Ok(());
        }
        // Another process may begin the same copy meanwhile.
        let is_note = |key: &Key| key.slot == copying();
        if note.is_some() || has_rows(target, &app.named(""), is_note).await? {
            return Err(KeyringError::InUse);
        }
        // Wrapped as it is, our data key says who copies here.
        let [_, key] = self.keyring_of(self.backend()).await?;
        let note = Change::Put {
            slot: copying(),
            row: Row {
                version: Version::mint(),
                ..key.ok_or(KeyringError::NotCopied)?
            },
            expect: Expect::Absent,
        };
        match target.commit(&app.keyring(), &[note]).await {
            Err(Error::Conflict) => {
                let begun = "another copy has just begun".into();
                Err(Error::Unavailable(begun).into())
            }
            outcome => Ok(outcome?),
        }
    }

    /// The note of a copy and the primary data key, as a backend has them.
    async fn keyring_of<T: Backend + ?Sized>(
        &self,
        backend: &T,
    ) -> Result<[Option<Row>; 2], Error> {
        let slots = [copying(), primary_slot()];
        let rows = backend.read(&self.driver.app.keyring(), &slots).await?;
        Ok(rows.try_into().expect("a read returns a row for each slot"))
    }

    /// Whether this is one of this store's data keys.
    async fn is_ours(&self, key: Option<&Row>) -> Result<bool, Error> {
        match key {
            Some(key) => self.driver.keys.has(key).await,
            None => Ok(false),
        }
    }

    /// Opens a row as the kind of record that its metadata says it is.
    async fn open_any(&self, key: &Key, row: &Row) -> Result<(), store::Error> {
        if key.partition == self.driver.app.keyring() {
            return Ok(self.driver.keys.opens(row).await?);
        }
        let kind = record::kind_of(row.metadata.as_str());
        let kind = kind.ok_or_else(|| record::unknown("a row's metadata"))?;
        let opened = self.driver.open(&key.partition, &key.slot, kind, row);
        opened.await.map(drop)
    }
}

/// Rows, the keys of malformed ones, and where the next page starts.
type AppPage = (Vec<(Key, Row)>, Vec<String>, Option<ListCursor>);

/// What became of a row.
enum Carried {
    Copied,
    Present,
    Replaced,
}

/// Puts a row into the target, whatever an earlier pass has put there.
async fn carry<T: Backend + ?Sized>(target: &T, key: &Key, row: Row) -> Result<Carried, Error> {
    let slots = std::slice::from_ref(&key.slot);
    let mut stored: Option<Row> = None;
    // Once where no row is, once over the one that is, and once for each commit that is lost.
    for _ in 0..ATTEMPTS {
        let put = Change::Put {
            slot: key.slot.clone(),
            row: row.clone(),
            expect: match &stored {
                Some(stored) => Expect::Version(stored.version),
                None => Expect::Absent,
            },
        };
        match commit(target, &key.partition, &[put]).await {
            Ok(()) if stored.is_some() => return Ok(Carried::Replaced),
            Ok(()) => return Ok(Carried::Copied),
            Err(Error::Conflict) => {
                let read = target.read(&key.partition, slots).await?;
                stored = read.into_iter().next().flatten();
                if stored.as_ref() == Some(&row) {
                    return Ok(Carried::Present);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::Unavailable("the target did not take a row".into()))
}

/// Of a row, before the target is taken to be unavailable.
const ATTEMPTS: usize = 5;

/// A page stays well within memory: rows have up to 320 KiB.
const MAX_PAGE: usize = 1000;
