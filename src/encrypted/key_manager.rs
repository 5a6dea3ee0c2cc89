//! Manages the data keys of an app: rotation in phases, while the app runs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use thiserror::Error;

use super::driver::RowOutcome;
use super::keys::{
    ATTEMPTS, DEAD_AFTER, KeyProcess, KeyState, ListedKey, RewrapOutcome, overtaken,
};
use super::moving::{AppPage, is_outage};
use super::{EncryptedStore, KeyringError};
use crate::backend::{self, Backend, Key, Row};
use crate::error_chain::error_chain;
use crate::seal::KeyId;
use crate::span::{self, Ended, Operation};
use crate::store::{self, ActKind, ListCursor};

/// Manages the data keys of a store: [`EncryptedStore::keys`].
///
/// # How to rotate a data key
///
/// The app keeps running. Each step can be repeated after a crash.
///
/// 1. [`add`](Self::add) makes a key. Every process unwraps it within 15 minutes.
/// 2. [`promote`](Self::promote) makes it the primary and retires the old one. New rows are sealed
///    under it. Other processes follow within 15 minutes.
/// 3. [`reseal`](Self::reseal) all pages, 30 minutes later, because until then a process may still
///    seal under the old key. [`usage`](Self::usage) shows how many rows are left.
/// 4. [`destroy`](Self::destroy) deletes the old key, when no row needs it.
///
/// If the store has a witness, such as [`Audit`](crate::audit::Audit), each change is recorded before
/// its method returns. If the record cannot be written, the change stays, and the method returns an
/// error.
///
/// To change the master key, or the key provider, configure the new one as the primary and the old
/// one as retired, in every process. Then call [`rewrap`](Self::rewrap), and remove the old one.
/// `docs/keys.md` in the repository has the order of a rollout.
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
/// assert!(keys.promote(new, true).await?);
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
    /// fetches a key again, for the first time after about 4 minutes. So a process that has just
    /// started, or that is idle, is not listed.
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
    /// When the key was added. `None` after it was promoted.
    pub added_at: Option<SystemTime>,
    /// When the key stopped sealing.
    pub retired_at: Option<SystemTime>,
}

/// How many rows of one page are sealed under each key.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct KeyUsage {
    /// The number of rows under each key. A key of no row is not in it.
    pub rows: BTreeMap<KeyId, usize>,
    /// Rows that cannot be parsed, so that their key is unknown, as `partition slot`.
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
    /// The keys that were already wrapped under what the key provider wraps with now. They are
    /// unchanged. If the key provider is not of this crate, its keys are always wrapped again.
    pub current: Vec<KeyId>,
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
            added_at: key.added_at,
            retired_at: key.retired_at,
        });
        Ok(KeyList {
            keys: info.collect(),
            processes: keys.processes(self.0.clock.now()).await?,
        })
    }

    /// Counts the rows of one page under each key. Opens no row. Sum up all pages to learn what is
    /// still under a key.
    ///
    /// # Errors
    ///
    /// [`KeyChangeError::Keyring`], if the database does not respond.
    ///
    /// # Cancel safety
    ///
    /// Changes nothing. You can drop the call at any point.
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
        for (key, row) in rows {
            match row.sealed.key_id() {
                Ok(id) => *usage.rows.entry(id).or_default() += 1,
                Err(_) => usage.malformed.push(key.to_string()),
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
    ///
    /// # Cancel safety
    ///
    /// If you drop the call, the key may have been made.
    pub async fn add(&self) -> Result<KeyId, KeyChangeError> {
        let add = self.0.driver.keys.add(self.0.clock.now());
        Ok(self.on_behalf(add).await?)
    }

    /// Makes a distributed key the primary, and retires the old primary. Returns `false` if the key
    /// already is the primary.
    ///
    /// Every running process must have unwrapped the key, and the key must be 15 minutes old, so
    /// that every running process has had the time for it. `force` promotes it at once. A process
    /// that cannot unwrap it then serves no tenant whose rows are sealed under it.
    ///
    /// # Errors
    ///
    /// [`KeyChangeError::NotEverywhere`] and [`KeyChangeError::TooEarly`], unless forced.
    /// [`KeyChangeError::NotDistributed`], if the key was retired, or does not exist.
    /// [`KeyChangeError::Keyring`], if the keyring cannot be read or written, or this process
    /// cannot unwrap the key. If the database did not respond, call it again.
    ///
    /// # Cancel safety
    ///
    /// If you drop the call, it is applied fully or not at all.
    pub async fn promote(&self, id: KeyId, force: bool) -> Result<bool, KeyChangeError> {
        let (keys, now) = (&self.0.driver.keys, self.0.clock.now());
        for _ in 0..ATTEMPTS {
            let loaded = keys.load().await?;
            let Some(key) = self.promotable(loaded.key(id), id, force).await? else {
                return Ok(false);
            };
            if self.on_behalf(keys.promote(&loaded, key, now)).await? {
                return Ok(true);
            }
        }
        Err(overtaken().into())
    }

    /// Checks whether [`promote`](Self::promote) would be refused. Returns `false` if the key
    /// already is the primary.
    ///
    /// # Errors
    ///
    /// As [`promote`](Self::promote).
    ///
    /// # Cancel safety
    ///
    /// Changes nothing. You can drop the call at any point.
    pub async fn check_promote(&self, id: KeyId, force: bool) -> Result<bool, KeyChangeError> {
        let loaded = self.0.driver.keys.load().await?;
        let key = self.promotable(loaded.key(id), id, force).await?;
        Ok(key.is_some())
    }

    /// Returns the key if it can be promoted; `None` if it already is the primary.
    async fn promotable(
        &self,
        key: Option<ListedKey>,
        id: KeyId,
        force: bool,
    ) -> Result<Option<ListedKey>, KeyChangeError> {
        let key = match key {
            Some(key) if key.state == KeyState::Primary => return Ok(None),
            Some(key) if key.state == KeyState::Distributed => key,
            _ => return Err(KeyChangeError::NotDistributed { id }),
        };
        if !force {
            self.check_distribution(&key, self.0.clock.now()).await?;
        }
        Ok(Some(key))
    }

    /// Checks that every process has unwrapped this key.
    async fn check_distribution(
        &self,
        key: &ListedKey,
        now: SystemTime,
    ) -> Result<(), KeyChangeError> {
        // Every process that runs has written its row since the key was added.
        must_be_past(key.added_at.map(|added_at| added_at + DEAD_AFTER), now)?;
        let mut lacking = self.0.driver.keys.processes(now).await?;
        lacking.retain(|process| !process.keys.contains(&key.id));
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
    /// You can continue an interrupted pass at its last page or at the first one: rows that are
    /// already sealed under the primary key are only read.
    ///
    /// # Errors
    ///
    /// [`KeyChangeError::Keyring`] or [`KeyChangeError::Store`], if the database or the key provider
    /// does not respond. Re-seal the page again.
    ///
    /// # Cancel safety
    ///
    /// If you drop the call, a part of the page may be re-sealed. Re-seal the page again.
    pub async fn reseal(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<Resealed, KeyChangeError> {
        span::reseal()
            .run(self.reseal_page(from, limit), ended)
            .await
    }

    async fn reseal_page(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<Resealed, KeyChangeError> {
        // Another process may have promoted a key.
        self.0.driver.keys.load().await?;
        let (rows, malformed, next) = self.page(from, limit).await?;
        let skipped = malformed.iter();
        let skipped = skipped.map(|key| format!("{key}: it cannot be parsed"));
        let mut page = Resealed {
            skipped: skipped.collect(),
            next,
            ..Resealed::default()
        };
        let resealed = self.reseal_rows(rows, &mut page).await;
        if page.resealed > 0 {
            let (id, _) = self.0.driver.keys.primary().await?;
            let report = self.0.driver.keys.report_change(ActKind::Reseal, id);
            self.on_behalf(report).await?;
        }
        resealed.map(|()| page)
    }

    async fn reseal_rows(
        &self,
        rows: Vec<(Key, Row)>,
        page: &mut Resealed,
    ) -> Result<(), KeyChangeError> {
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
        Ok(())
    }

    /// Deletes a data key for ever. Rows under it can never be opened again, also not those of a
    /// backup that lacks the keyring. Returns `false` if the keyring does not list the key: an
    /// earlier call deleted it.
    ///
    /// The key must not be the primary. All rows are read, and none may be sealed under the key.
    /// 30 minutes must have passed since it was retired, because until then a process may still
    /// seal under it. A key that was never the primary can be deleted at once.
    ///
    /// # Errors
    ///
    /// [`KeyChangeError::InUse`], [`KeyChangeError::TooEarly`], [`KeyChangeError::NotRetired`],
    /// [`KeyChangeError::UnknownRows`]. [`KeyChangeError::Keyring`], if the keyring or the rows
    /// cannot be read, or the keyring cannot be written. If the database did not respond, call it
    /// again.
    ///
    /// # Cancel safety
    ///
    /// If you drop the call, it is applied fully or not at all.
    pub async fn destroy(&self, id: KeyId) -> Result<bool, KeyChangeError> {
        let keys = &self.0.driver.keys;
        for _ in 0..ATTEMPTS {
            // It is read before the rows. If the key is promoted meanwhile, nothing is deleted.
            let loaded = keys.load().await?;
            let Some(key) = loaded.key(id) else {
                return Ok(false);
            };
            self.check_unused(&key).await?;
            if self.on_behalf(keys.destroy(&loaded, id)).await? {
                return Ok(true);
            }
        }
        Err(overtaken().into())
    }

    /// Checks whether [`destroy`](Self::destroy) would be refused. Returns `false` if the keyring
    /// does not list the key.
    ///
    /// # Errors
    ///
    /// As [`destroy`](Self::destroy).
    ///
    /// # Cancel safety
    ///
    /// Changes nothing. You can drop the call at any point.
    pub async fn check_destroy(&self, id: KeyId) -> Result<bool, KeyChangeError> {
        let Some(key) = self.0.driver.keys.load().await?.key(id) else {
            return Ok(false);
        };
        self.check_unused(&key).await?;
        Ok(true)
    }

    /// Checks that no row needs this key, and that no process seals under it.
    async fn check_unused(&self, key: &ListedKey) -> Result<(), KeyChangeError> {
        let id = key.id;
        let until = match (key.state, key.retired_at) {
            (KeyState::Distributed, _) => None,
            (KeyState::Retired, Some(retired_at)) => Some(retired_at + DESTROY_AFTER),
            _ => return Err(KeyChangeError::NotRetired { id }),
        };
        must_be_past(until, self.0.clock.now())?;
        let (mut under, mut unknown, mut from) = (0, Vec::new(), None);
        loop {
            let page = self.usage(from, usize::MAX).await?;
            under += page.rows.get(&id).copied().unwrap_or_default();
            unknown.extend(page.malformed);
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        if under > 0 {
            return Err(KeyChangeError::InUse { id, rows: under });
        }
        if !unknown.is_empty() {
            return Err(KeyChangeError::UnknownRows { rows: unknown });
        }
        Ok(())
    }

    /// Wraps every data key again under what the key provider wraps with now, for a new master key
    /// or a new provider. The data keys stay the same, so no row of a tenant changes.
    ///
    /// The provider must unwrap each key to itself before the key is stored. You can repeat an
    /// interrupted call: keys that are already wrapped under the new key stay unchanged.
    ///
    /// # Errors
    ///
    /// [`KeyChangeError::Keyring`], if the keyring cannot be read, or the database does not
    /// respond. Call it again. A fault of one key is in [`Rewrapped::failed`], and stops no other
    /// key.
    ///
    /// # Cancel safety
    ///
    /// If you drop the call, a part of the keys may be wrapped again. Call it again.
    pub async fn rewrap(&self) -> Result<Rewrapped, KeyChangeError> {
        let keys = &self.0.driver.keys;
        let mut report = Rewrapped::default();
        for key in keys.listed().await? {
            match self.on_behalf(keys.rewrap(key.id)).await {
                Ok(RewrapOutcome::Current) => report.current.push(key.id),
                Ok(RewrapOutcome::Destroyed) => {}
                Ok(RewrapOutcome::Rewrapped) => report.rewrapped.push(key.id),
                Err(error @ KeyringError::Backend(_)) => return Err(error.into()),
                Err(error) => report.failed.push((key.id, error)),
            }
        }
        Ok(report)
    }

    /// Does this on behalf of the part of the app that this store names, if it does.
    pub(super) async fn on_behalf<T>(&self, work: impl Future<Output = T> + Send) -> T {
        match self.0.driver.witness.who.clone() {
            Some(who) => who.scope(work).await,
            None => work.await,
        }
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

/// Returns the subject of a sentence about these processes, with its verb.
fn have(processes: &[String]) -> String {
    match processes {
        [one] => format!("the process {one} has"),
        all => format!("the processes {} have", all.join(", ")),
    }
}

/// Why the data keys of an app were not changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyChangeError {
    /// Rows are sealed under the key.
    #[error(
        "{} sealed under the data key {id}: call `reseal` for all pages first",
        if *rows == 1 { "1 row is".to_owned() } else { format!("{rows} rows are") }
    )]
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
        "{} not unwrapped the data key: check their key provider, \
         stop them, or use force",
        have(processes)
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
        "other processes may not have followed the last change of this data key: try again in {} s",
        wait.as_secs() + 1
    )]
    TooEarly {
        /// How long to wait.
        wait: Duration,
    },
    /// Some rows cannot be parsed, so they may be sealed under the key.
    #[error(
        "the rows {} cannot be parsed, so they may need the data key: restore or delete them first",
        rows.join(", ")
    )]
    UnknownRows {
        /// The rows, as `partition slot`.
        rows: Vec<String>,
    },
}

impl From<backend::Error> for KeyChangeError {
    fn from(error: backend::Error) -> Self {
        Self::Keyring(error.into())
    }
}

/// Returns what the span of a re-sealed page says.
fn ended(_: &Operation, page: &Result<Resealed, KeyChangeError>) -> Ended {
    let page = match page {
        Ok(page) => page,
        Err(error) => return Ended::badly("failed", cause(error)),
    };
    if !page.skipped.is_empty() {
        Ended::badly("incomplete", "skipped")
    } else if page.overtaken > 0 {
        Ended::badly("incomplete", "overtaken")
    } else if page.resealed > 0 {
        Ended::well("resealed")
    } else {
        Ended::well("current")
    }
}

/// Returns the name of what stopped a page.
fn cause(error: &KeyChangeError) -> &'static str {
    match error {
        KeyChangeError::Keyring(KeyringError::Backend(_))
        | KeyChangeError::Store(store::Error::Unavailable(_)) => "store",
        KeyChangeError::Keyring(KeyringError::Key(_))
        | KeyChangeError::Store(store::Error::Key(_)) => "key_provider",
        _ => "keyring",
    }
}

fn must_be_past(until: Option<SystemTime>, now: SystemTime) -> Result<(), KeyChangeError> {
    match until.and_then(|until| until.duration_since(now).ok()) {
        None | Some(Duration::ZERO) => Ok(()),
        Some(wait) => Err(KeyChangeError::TooEarly { wait }),
    }
}

/// A process may seal under a key for 15 minutes after it was retired, and a flight that pinned the
/// key for 11 minutes more.
const DESTROY_AFTER: Duration = Duration::from_secs(30 * 60);
