//! Copies sealed rows unchanged from one backend to another.
//!
//! A note in the target's keyring says that a copy is in progress. While the note exists, the
//! target does not open as a store. So every row of this app in the target comes from a copy, and
//! a later pass may replace or remove it.

use std::error::Error as _;

use super::commit::commit_copy;
use super::keys::{copying, has_rows, is_process, manifest_slot};
use super::{EncryptedStore, KeyringError, names, record};
use crate::backend::{Backend, Change, Due, Error, Expect, Key, Row, Slot, Version};
use crate::clock::{from_epoch, to_epoch};
use crate::error_chain::error_chain;
use crate::seal::KeyError;
use crate::store::{self, ListCursor};

/// The result of copying one page.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Copied {
    /// The number of rows that the target did not have and that were written.
    pub copied: usize,
    /// The number of rows that the target already had, byte for byte.
    pub present: usize,
    /// The number of rows that an earlier pass had copied and that were replaced, because they have
    /// changed since.
    pub replaced: usize,
    /// The rows that were not copied, as `partition slot: reason`. For example, a row cannot be
    /// parsed, or it is larger than the contract of [`Backend`] requires the target to accept.
    pub refused: Vec<String>,
    /// The cursor of the next page; `None` after the last page.
    pub next: Option<ListCursor>,
}

/// The result of pruning one page.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Pruned {
    /// The number of the target's rows that also exist in the source.
    pub kept: usize,
    /// The number of rows that no longer exist in the source and that were removed.
    pub removed: usize,
    /// Rows of the target that cannot be parsed. They were not removed.
    pub malformed: Vec<String>,
    /// The cursor of the next page; `None` after the last page.
    pub next: Option<ListCursor>,
}

/// The result of verifying one page.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The number of rows that opened.
    pub opened: usize,
    /// How many of these rows belong to tenants. The others are data keys, OAuth states, handled
    /// requests and the audit log.
    pub of_tenants: usize,
    /// Rows that do not open or cannot be parsed, as `partition slot`. On the first page, also the
    /// rows that the keyring lacks.
    pub unreadable: Vec<String>,
    /// Rows whose data key cannot be used, as `partition slot: reason`. They are not damaged. For
    /// example, this process lacks a master key, or the keyring was rolled back.
    pub without_key: Vec<String>,
    /// The cursor of the next page; `None` after the last page.
    pub next: Option<ListCursor>,
}

impl<B: Backend> EncryptedStore<B> {
    /// Copies a page of this app's rows to another backend: installations, states and data keys.
    /// Rows stay sealed and are copied byte for byte.
    ///
    /// # How to move
    ///
    /// 1. Copy all pages, once or several times, while the app runs. Meanwhile, the target does not
    ///    open as a store ([`KeyringError::Copying`]).
    /// 2. Call [`TokenRotator::shutdown`](crate::TokenRotator::shutdown) and stop every process of
    ///    the app. Otherwise a token that is refreshed later would be missing in the target.
    /// 3. Copy all pages once more, which replaces the rows that have changed. Then
    ///    [`prune`](Self::prune) all pages, which removes the rows that were deleted. Otherwise the
    ///    target would restore tenants that were uninstalled during the copy.
    /// 4. Call [`finish_copy`](Self::finish_copy) and open the target. [`verify`](Self::verify) all
    ///    pages, and compare the number of rows. Then start the app on the target. Never start it
    ///    on the source again, because both would use the same refresh tokens.
    ///
    /// If the app is stopped from the beginning, step 3 finds nothing to do. You can continue an
    /// interrupted pass at its last page or at the first one: rows that the target already has stay
    /// unchanged. A lease that a killed process left behind is copied too, and expires.
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
    /// [`KeyringError::InUse`], if the target is already a store of this app. Then nothing is
    /// written.
    /// [`KeyringError::Backend`], if one of the backends does not respond. Copy the page again.
    ///
    /// # Cancel safety
    ///
    /// If you drop the call, a part of the page may be copied. Copy the page again.
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

    /// Removes the rows that an earlier pass of [`copy_to`](Self::copy_to) copied and that no
    /// longer exist in this store. Handles one page of the target's rows.
    ///
    /// # Errors
    ///
    /// [`KeyringError::NotCopied`], if no copy into the target is in progress. Then nothing is
    /// deleted.
    /// [`KeyringError::Backend`], if one of the backends does not respond. Prune the page again.
    ///
    /// # Cancel safety
    ///
    /// If you drop the call, a part of the page may be pruned. Prune the page again.
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

    /// Finishes a copy. From then on, the target opens as a store and accepts no further copy.
    ///
    /// # Errors
    ///
    /// [`KeyringError::NotCopied`], if no copy into the target is in progress, or the target's
    /// keyring is not this store's current one.
    /// [`KeyringError::Backend`], if one of the backends does not respond. Call it again.
    ///
    /// # Cancel safety
    ///
    /// If you drop the call, it is applied fully or not at all.
    pub async fn finish_copy<T: Backend + ?Sized>(&self, target: &T) -> Result<(), KeyringError> {
        let [note, manifest] = self.keyring_of(target).await?;
        let keys = &self.driver.keys;
        if let (None, Some(manifest)) = (&note, &manifest)
            && keys.has_sealed(manifest, target).await?
        {
            // An earlier call finished the copy.
            return Ok(());
        }
        if !self.is_ours(note.as_ref()).await? || !keys.is_copied_to(target).await? {
            return Err(KeyringError::NotCopied);
        }
        let delete = Change::Delete {
            slot: copying(),
            only: None,
        };
        let keyring = self.driver.app.keyring();
        Ok(target.commit(&keyring, &[delete]).await?)
    }

    /// Opens a page of this app's rows, data keys included. Returns the rows that do not open, and
    /// those whose data key cannot be used. A retired key may have sealed rows that are missing here.
    ///
    /// # Errors
    ///
    /// [`store::Error::Unavailable`], if the backend does not respond. [`store::Error::Key`], if
    /// the key provider does not respond.
    ///
    /// # Cancel safety
    ///
    /// Changes nothing. You can drop the call at any point.
    pub async fn verify(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<VerifyReport, store::Error> {
        let is_first = from.is_none();
        let (rows, malformed, next) = self.page(self.backend(), from, limit).await?;
        let mut page = VerifyReport {
            unreadable: malformed,
            next,
            ..VerifyReport::default()
        };
        if is_first {
            page.unreadable.extend(self.driver.keys.missing().await?);
        }
        for (key, row) in rows {
            let is_key = key.partition == self.driver.app.keyring();
            match self.open_any(&key, &row).await {
                Ok(()) => {
                    page.opened += 1;
                    page.of_tenants += usize::from(names::tenant_of(&key.partition).is_some());
                }
                Err(store::Error::Unreadable(_)) => {
                    self.driver.witness.unreadable(&key, &row).await?;
                    page.unreadable.push(key.to_string());
                }
                Err(error) if is_outage(&error) => return Err(error),
                Err(error) if is_key && is_damage(&error) => {
                    page.unreadable.push(key.to_string());
                }
                Err(error) => {
                    let reason = error_chain(&error);
                    page.without_key.push(format!("{key}: {reason}"));
                }
            }
        }
        Ok(page)
    }

    /// Returns a page of this app's rows, the keys of malformed rows, and the next page's cursor.
    pub(super) async fn page<T: Backend + ?Sized>(
        &self,
        backend: &T,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<AppPage, Error> {
        let app = &self.driver.app;
        // A page is limited by memory as well as by `limit`.
        let limit = limit.min(MAX_PAGE);
        let from = from.map(ListCursor::into);
        let mut page = backend.scan(&app.named(""), from, limit).await?;
        let keyring = app.keyring();
        // These rows concern this database only.
        let is_passing = |slot: &Slot| *slot == copying() || is_process(slot);
        page.rows
            .retain(|(key, _)| key.partition != keyring || !is_passing(&key.slot));
        Ok((page.rows, page.malformed, page.next.map(ListCursor::from)))
    }

    /// Writes the note that a copy is in progress, if the target has no rows of this app.
    async fn begin_copy<T: Backend + ?Sized>(&self, target: &T) -> Result<(), KeyringError> {
        let app = &self.driver.app;
        let [note, _] = self.keyring_of(target).await?;
        if self.is_ours(note.as_ref()).await? {
            return Ok(());
        }
        // Another process may start the same copy at the same time.
        let is_note = |key: &Key| key.slot == copying();
        if note.is_some() || has_rows(target, &app.named(""), is_note).await? {
            return Err(KeyringError::InUse);
        }
        // The note contains our wrapped data key, which identifies the store that copies.
        let note = Change::Put {
            slot: copying(),
            row: Row {
                version: Version::mint(),
                ..self.driver.keys.primary_row().await?
            },
            expect: Expect::Absent,
        };
        match target.commit(&app.keyring(), &[note]).await {
            Err(Error::Conflict) => {
                let begun = "another process has just started a copy: try again".into();
                Err(Error::Unavailable(begun).into())
            }
            outcome => Ok(outcome?),
        }
    }

    /// Reads the note of a copy and the manifest from a backend.
    async fn keyring_of<T: Backend + ?Sized>(
        &self,
        backend: &T,
    ) -> Result<[Option<Row>; 2], Error> {
        let slots = [copying(), manifest_slot()];
        let rows = backend.read(&self.driver.app.keyring(), &slots).await?;
        Ok(rows.try_into().expect("a read returns a row for each slot"))
    }

    /// Returns whether the row has one of this store's data keys.
    async fn is_ours(&self, key: Option<&Row>) -> Result<bool, Error> {
        match key {
            Some(key) => self.driver.keys.has(key).await,
            None => Ok(false),
        }
    }

    /// Opens a row as the kind of record that its metadata names.
    async fn open_any(&self, key: &Key, row: &Row) -> Result<(), store::Error> {
        if key.partition == self.driver.app.keyring() {
            return Ok(self.driver.keys.check(key, row).await?);
        }
        let kind = record::kind_of(row.metadata.as_str());
        let kind = kind.ok_or_else(|| record::unknown("a row's metadata"))?;
        let opened = self.driver.open(&key.partition, &key.slot, kind, row);
        opened.await.map(drop)
    }
}

/// Returns whether the database or the key provider does not respond, so that nothing is known of
/// the row.
pub(super) fn is_outage(error: &store::Error) -> bool {
    matches!(error, store::Error::Unavailable(_))
        || keyring_error(error).is_some_and(KeyringError::is_transient)
}

/// Returns whether this error about a row of the keyring says that the row is wrong. A provider
/// that refuses a key, or lacks the key that wrapped it, says nothing about the row.
fn is_damage(error: &store::Error) -> bool {
    !matches!(
        keyring_error(error),
        Some(KeyringError::Key(
            KeyError::Refused { .. } | KeyError::UnknownKey { .. }
        ))
    )
}

fn keyring_error(error: &store::Error) -> Option<&KeyringError> {
    error.source()?.downcast_ref()
}

/// Rows, the keys of malformed rows, and the cursor of the next page.
pub(super) type AppPage = (Vec<(Key, Row)>, Vec<String>, Option<ListCursor>);

/// What [`carry`] did with a row.
enum Carried {
    Copied,
    Present,
    Replaced,
}

/// Writes a row to the target. Replaces the row that an earlier pass has written.
async fn carry<T: Backend + ?Sized>(target: &T, key: &Key, row: Row) -> Result<Carried, Error> {
    let slots = std::slice::from_ref(&key.slot);
    let mut stored: Option<Row> = None;
    let mut lost = None;
    // One attempt as a new row, one over the stored row, and one for each commit that is lost.
    for _ in 0..ATTEMPTS {
        let put = Change::Put {
            slot: key.slot.clone(),
            row: row.clone(),
            expect: match &stored {
                Some(stored) => Expect::Version(stored.version),
                None => Expect::Absent,
            },
        };
        match commit_copy(target, &key.partition, &[put]).await {
            Ok(()) if stored.is_some() => return Ok(Carried::Replaced),
            Ok(()) => return Ok(Carried::Copied),
            Err(Error::Conflict) => {
                let read = target.read(&key.partition, slots).await?;
                stored = read.into_iter().next().flatten();
                if stored.as_ref() == Some(&row) {
                    return Ok(Carried::Present);
                }
            }
            // Expectations make it safe to commit again, and a page that fails is copied again
            // from its start.
            Err(Error::Unavailable(cause)) => lost = Some(cause),
            Err(error) => return Err(error),
        }
    }
    let changed = || "others changed a row in the target during 5 attempts".into();
    Err(Error::Unavailable(lost.unwrap_or_else(changed)))
}

/// The attempts to write one row.
const ATTEMPTS: usize = 5;

/// Limits the memory for a page: a row has up to 320 KiB.
const MAX_PAGE: usize = 1000;
