//! Manages the data keys of an app: rotation in phases, while the app runs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use thiserror::Error;

use super::driver::RowOutcome;
use super::keys::{DEAD_AFTER, KeyProcess, KeyState};
use super::moving::{AppPage, is_outage};
use super::{EncryptedStore, KeyringError};
use crate::backend::{self, Backend, Key, Row};
use crate::error_chain::error_chain;
use crate::seal::KeyId;
use crate::store::{self, ListCursor};

/// Manages the data keys of a store: [`EncryptedStore::keys`].
///
/// # How to rotate a data key
///
/// The app keeps running. Each step can be repeated after a crash.
///
/// 1. [`add`](Self::add) makes a key. Every process unwraps it within 15 minutes.
/// 2. [`promote`](Self::promote) makes it the primary and retires the old one. New rows are sealed
///    under it. Other processes follow within 15 minutes.
/// 3. [`reseal`](Self::reseal) all pages, 15 minutes later, so that no process seals under the old
///    key meanwhile. [`usage`](Self::usage) shows how many rows are left.
/// 4. [`destroy`](Self::destroy) deletes the old key, when no row needs it and 30 minutes have
///    passed since it was retired.
///
/// To change the master key, or the key provider, configure the new one as the primary and the old
/// one as retired, in every process. Then call [`rewrap`](Self::rewrap), and remove the old one.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// # use slack_installs::backend::MemoryBackend;
/// # use slack_installs::{ClientId, EncryptedStore, LocalKeyProvider, MasterKey};
/// # let provider = LocalKeyProvider::new(MasterKey::generate());
/// # let app = ClientId::new("1.2")?;
/// # let store = EncryptedStore::open(MemoryBackend::default(), provider, app).await?;
/// let keys = store.keys();
/// let new = keys.add().await?;
/// keys.promote(new, true).await?;
/// let mut next = None;
/// loop {
///     let page = keys.reseal(next, 500).await?;
///     next = page.next;
///     if next.is_none() {
///         break;
///     }
/// }
/// assert_eq!(keys.list().await?.keys.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct KeyManager<'a, B>(&'a EncryptedStore<B>);

/// The data keys of an app, and the processes that use them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyList {
    /// The keys, oldest first.
    pub keys: Vec<KeyInfo>,
    /// The processes that fetched a key in the last 15 minutes. A process writes its row when it
    /// fetches a key again, for the first time after about 4 minutes.
    pub processes: Vec<KeyProcess>,
}

/// A data key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct KeyInfo {
    /// The key's id.
    pub id: KeyId,
    /// The key's place in the order of the app's keys.
    pub epoch: u64,
    /// What the key is used for.
    pub state: KeyState,
    /// When the key stopped sealing.
    pub retired_at: Option<SystemTime>,
}

/// How many rows of one page are sealed under each key.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct KeyUsage {
    /// The rows under each key, by its id in hex.
    pub rows: BTreeMap<String, usize>,
    /// Rows that cannot be parsed, so that their key is unknown.
    pub malformed: Vec<String>,
    /// The cursor of the next page; `None` after the last page.
    pub next: Option<ListCursor>,
}

/// The result of re-sealing one page.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Resealed {
    /// The number of rows that were sealed again under the primary key.
    pub resealed: usize,
    /// The number of rows that were already sealed under the primary key.
    pub current: usize,
    /// The number of rows that another process changed meanwhile. They may be under the old key:
    /// re-seal all pages once more.
    pub overtaken: usize,
    /// The rows that do not open or cannot be parsed, as `partition slot: reason`. They are
    /// unchanged.
    pub skipped: Vec<String>,
    /// The cursor of the next page; `None` after the last page.
    pub next: Option<ListCursor>,
}

/// The result of wrapping the data keys again.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Rewrapped {
    /// The keys that were wrapped again.
    pub rewrapped: Vec<KeyId>,
    /// The keys that could not be wrapped again, and why. They are unchanged.
    pub failed: Vec<(KeyId, KeyringError)>,
}

impl<B: Backend> EncryptedStore<B> {
    /// Returns the manager of this app's data keys.
    #[must_use]
    pub fn keys(&self) -> KeyManager<'_, B> {
        KeyManager(self)
    }
}

impl<B: Backend> KeyManager<'_, B> {
    /// Returns the data keys and the processes that use them.
    ///
    /// # Errors
    ///
    /// [`KeyChangeError::Keyring`], if the keyring cannot be read.
    pub async fn list(&self) -> Result<KeyList, KeyChangeError> {
        let keys = &self.0.driver.keys;
        let mut listed = keys.listed().await?;
        listed.sort_unstable_by_key(|key| key.epoch);
        let info = listed.into_iter().map(|key| KeyInfo {
            id: key.id,
            epoch: key.epoch,
            state: key.state,
            retired_at: key.retired_at,
        });
        Ok(KeyList {
            keys: info.collect(),
            processes: keys.processes(self.0.clock.now()).await?,
        })
    }

    /// Counts the rows of one page under each key.
    ///
    /// # Errors
    ///
    /// [`KeyChangeError::Keyring`], if the database does not respond.
    pub async fn usage(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<KeyUsage, KeyChangeError> {
        let (rows, malformed, next) = self.page(from, limit).await?;
        let mut usage = KeyUsage {
            malformed,
            next,
            ..KeyUsage::default()
        };
        for (_, row) in rows {
            if let Ok(id) = row.sealed.key_id() {
                *usage.rows.entry(id.to_string()).or_default() += 1;
            }
        }
        Ok(usage)
    }

    /// Makes a data key that seals nothing yet. Every process unwraps it within 15 minutes.
    ///
    /// The key provider must unwrap the key before it is stored. Otherwise nothing is changed.
    ///
    /// # Errors
    ///
    /// [`KeyChangeError::Keyring`]. If the database did not respond, the key may have been made;
    /// [`list`](Self::list) has it then.
    pub async fn add(&self) -> Result<KeyId, KeyChangeError> {
        Ok(self.0.driver.keys.add(self.0.clock.now()).await?)
    }

    /// Makes a distributed key the primary, and retires the old primary. If the key is already the
    /// primary, changes nothing.
    ///
    /// Every running process must have unwrapped the key, and the key must be 15 minutes old, so
    /// that every running process has had the time for it. `force` promotes it at once. A process
    /// that cannot unwrap it then serves no tenant whose rows are sealed under it.
    ///
    /// # Errors
    ///
    /// [`KeyChangeError::NotEverywhere`], [`KeyChangeError::TooEarly`],
    /// [`KeyChangeError::NotDistributed`], [`KeyChangeError::Keyring`].
    pub async fn promote(&self, id: KeyId, force: bool) -> Result<(), KeyChangeError> {
        let (keys, now) = (&self.0.driver.keys, self.0.clock.now());
        if !force {
            self.check_distribution(id, now).await?;
        }
        if keys.promote(id, now).await? {
            Ok(())
        } else {
            Err(KeyChangeError::NotDistributed { id })
        }
    }

    async fn check_distribution(&self, id: KeyId, now: SystemTime) -> Result<(), KeyChangeError> {
        let keys = &self.0.driver.keys;
        let listed = keys.listed().await?;
        let added_at = listed.iter().find(|key| key.id == id);
        let Some(added_at) = added_at.and_then(|key| key.added_at) else {
            return Ok(());
        };
        let mut lacking = keys.processes(now).await?;
        lacking.retain(|process| !process.keys.contains(&id));
        if let Some(until) = later(added_at + DEAD_AFTER, now) {
            return Err(KeyChangeError::TooEarly { until });
        }
        if lacking.is_empty() {
            return Ok(());
        }
        let processes = lacking.into_iter().map(|process| process.id).collect();
        Err(KeyChangeError::NotEverywhere { processes })
    }

    /// Seals the rows of one page again under the primary key, unless they are already.
    ///
    /// A row keeps its version, plaintext, metadata and due time. So a refresh or an installation
    /// that read the row before can still write it. If another process changes a row meanwhile, its
    /// change wins. Rows that do not open are reported and stay unchanged.
    ///
    /// You can continue an interrupted pass at its last page or at the first one.
    ///
    /// # Errors
    ///
    /// [`KeyChangeError::Store`], if the database or the key provider does not respond. Re-seal the
    /// page again.
    ///
    /// # Cancel safety
    ///
    /// If you drop the call, a part of the page may be re-sealed. Re-seal the page again.
    pub async fn reseal(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<Resealed, KeyChangeError> {
        let (rows, malformed, next) = self.page(from, limit).await?;
        let skipped = malformed.iter();
        let skipped = skipped.map(|key| format!("{key}: it cannot be parsed"));
        let mut page = Resealed {
            skipped: skipped.collect(),
            next,
            ..Resealed::default()
        };
        for (key, row) in rows {
            match self.0.driver.reseal(&key, &row).await {
                Ok(RowOutcome::Current) => page.current += 1,
                Ok(RowOutcome::Overtaken) => page.overtaken += 1,
                Ok(RowOutcome::Resealed) => page.resealed += 1,
                Err(error) if !error.is_of_record() || is_outage(&error) => {
                    return Err(error.into());
                }
                Err(error) => page.skipped.push(format!("{key}: {}", error_chain(&error))),
            }
        }
        Ok(page)
    }

    /// Deletes a data key for ever. Rows under it can never be opened again.
    ///
    /// The key must not be the primary, no row may be sealed under it, and 30 minutes must have
    /// passed since it was retired. Until then, a process may still seal under it. A key that was
    /// never the primary can be deleted at once.
    ///
    /// # Errors
    ///
    /// [`KeyChangeError::InUse`], [`KeyChangeError::TooEarly`], [`KeyChangeError::NotRetired`],
    /// [`KeyChangeError::Keyring`].
    pub async fn destroy(&self, id: KeyId) -> Result<(), KeyChangeError> {
        let keys = &self.0.driver.keys;
        let listed = keys.listed().await?;
        // An earlier call destroyed it.
        let Some(key) = listed.into_iter().find(|key| key.id == id) else {
            return Ok(());
        };
        match (key.state, key.retired_at) {
            (KeyState::Distributed, _) => {}
            (KeyState::Retired, Some(retired_at)) => {
                if let Some(until) = later(retired_at + DESTROY_AFTER, self.0.clock.now()) {
                    return Err(KeyChangeError::TooEarly { until });
                }
            }
            _ => return Err(KeyChangeError::NotRetired { id }),
        }
        let rows = self.rows_under(id).await?;
        if rows > 0 {
            return Err(KeyChangeError::InUse { id, rows });
        }
        Ok(keys.destroy(id).await?)
    }

    async fn rows_under(&self, id: KeyId) -> Result<usize, KeyChangeError> {
        let (mut count, mut from) = (0, None);
        loop {
            let (rows, _, next) = self.page(from, usize::MAX).await?;
            let under = |(_, row): &&(Key, Row)| row.sealed.key_id() == Ok(id);
            count += rows.iter().filter(under).count();
            from = next;
            if from.is_none() {
                return Ok(count);
            }
        }
    }

    /// Wraps every data key again under what the key provider wraps with now, for a new master key
    /// or a new provider. The data keys stay the same, so no row changes.
    ///
    /// The provider must unwrap each key to itself before the key is stored. You can repeat an
    /// interrupted call.
    ///
    /// # Errors
    ///
    /// [`KeyChangeError::Keyring`], if the keyring cannot be read. A fault of one key is in
    /// [`Rewrapped::failed`].
    pub async fn rewrap(&self) -> Result<Rewrapped, KeyChangeError> {
        let keys = &self.0.driver.keys;
        let mut report = Rewrapped::default();
        for key in keys.listed().await? {
            match keys.rewrap(key.id).await {
                Ok(()) => report.rewrapped.push(key.id),
                Err(error) => report.failed.push((key.id, error)),
            }
        }
        Ok(report)
    }

    /// Returns a page of this app's rows, except those of the keyring.
    async fn page(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<AppPage, backend::Error> {
        let (mut rows, malformed, next) = self.0.page(self.0.backend(), from, limit).await?;
        let keyring = self.0.driver.app.keyring();
        rows.retain(|(key, _)| key.partition != keyring);
        Ok((rows, malformed, next))
    }
}

impl<B: Backend> fmt::Debug for KeyManager<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyManager").field(self.0).finish()
    }
}

/// Why the data keys of an app were not changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyChangeError {
    /// Rows are sealed under the key.
    #[error("{rows} rows are sealed under the data key {id}: call `reseal` for all pages first")]
    InUse {
        /// The key.
        id: KeyId,
        /// The number of rows.
        rows: usize,
    },
    /// The keyring cannot be read or written.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The key is not waiting for its promotion.
    #[error("the data key {id} is not a distributed one: make a key with `add`")]
    NotDistributed {
        /// The key.
        id: KeyId,
    },
    /// Some running processes have not unwrapped the key.
    #[error(
        "the processes {processes:?} have not unwrapped the data key: check their key provider, \
         stop them, or use force"
    )]
    NotEverywhere {
        /// The ids of the processes.
        processes: Vec<String>,
    },
    /// The key is the primary.
    #[error("the data key {id} is the primary: promote another one first")]
    NotRetired {
        /// The key.
        id: KeyId,
    },
    /// A row could not be sealed again.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Other processes may not have followed the last change yet.
    #[error(
        "other processes may not have followed the last change of this data key: try again at \
             {until:?}"
    )]
    TooEarly {
        /// When it is time.
        until: SystemTime,
    },
}

impl From<backend::Error> for KeyChangeError {
    fn from(error: backend::Error) -> Self {
        Self::Keyring(error.into())
    }
}

fn later(then: SystemTime, now: SystemTime) -> Option<SystemTime> {
    (then > now).then_some(then)
}

/// A process may seal under a key for 15 minutes after it was retired, and a flight that pinned the
/// key for 11 minutes more.
const DESTROY_AFTER: Duration = Duration::from_secs(30 * 60);
