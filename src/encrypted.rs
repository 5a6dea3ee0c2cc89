//! Converts between typed records and sealed rows.
//!
//! Implements the traits of [`store`](crate::store) over any [`Backend`]. No other module of this
//! crate uses both.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use tokio::time::Instant;

use crate::backend::{self, Backend, Cursor};
use crate::clock::Clock;
use crate::seal::{KeyError, KeyId, KeyProvider};
use crate::store::{self, AuditContext, ListCursor, Witness};
use crate::tenant::ClientId;

mod audit_keys;
mod audit_rows;
mod cache;
mod chains;
mod commit;
mod driver;
mod figures;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod grant_facts;
mod hold_facts;
mod inspected;
mod install_facts;
mod installations;
mod key_manager;
mod keys;
mod lifecycle;
mod lifecycle_facts;
mod malformed;
mod merge;
mod metadata_facts;
mod moving;
mod names;
mod notes;
mod notice_facts;
mod notices;
mod partition_locks;
mod personal;
mod pins;
mod record;
mod removal;
mod reporter;
mod rotation_facts;
mod seen;
mod states;
mod stored_rows;
mod sweep;
mod tenants;

use audit_keys::AuditKeys;
pub use cache::CacheOptions;
use driver::Driver;
pub use inspected::{
    InspectedChain, InspectedInstall, InspectedPage, InspectedRow, RowContents, RowFault,
};
pub use key_manager::{
    KeyChangeError, KeyInfo, KeyList, KeyManager, KeyUsage, Resealed, Rewrapped,
};
pub use keys::InspectedKey;
use keys::{IfNone, Keys};
pub use keys::{KeyProcess, KeyState};
pub use moving::{Copied, Pruned, VerifyReport};
use names::App;
pub use personal::StoredFacts;
use reporter::Reporter;

/// Stores installations and used OAuth states in a backend, sealed. Cheap to clone.
///
/// Every secret is encrypted before it reaches the backend. It is bound to its app, tenant, slot,
/// version and visible metadata. There is no unencrypted mode.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// use slack_installs::backend::MemoryBackend;
/// use slack_installs::{ClientId, EncryptedStore, LocalKeyProvider, MasterKey};
///
/// let provider = LocalKeyProvider::new(MasterKey::generate());
/// let app = ClientId::new("100000000001.200000000002")?;
/// let store = EncryptedStore::open(MemoryBackend::default(), provider, app).await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A store cannot be opened without a key provider:
///
/// ```compile_fail
/// # async fn open(app: slack_installs::ClientId) {
/// use slack_installs::EncryptedStore;
/// use slack_installs::backend::MemoryBackend;
///
/// let store = EncryptedStore::open(MemoryBackend::default(), app).await;
/// # }
/// ```
pub struct EncryptedStore<B> {
    driver: Arc<Driver<B>>,
    clock: Clock,
    swept: Arc<std::sync::Mutex<Option<Instant>>>,
    audit_keys: Arc<AuditKeys>,
}

impl<B: Backend> EncryptedStore<B> {
    /// Opens the store of one app. If the app has no data key yet, makes the first one.
    ///
    /// Several apps, and several processes of one app, may share a backend.
    ///
    /// # Errors
    ///
    /// [`KeyringError`], if the backend does not respond, or the key provider cannot open the
    /// stored data key. Then nothing is changed.
    pub async fn open(
        backend: B,
        provider: impl KeyProvider,
        app: ClientId,
    ) -> Result<Self, KeyringError> {
        Self::open_or(backend, provider, app, IfNone::MakeFirst).await
    }

    /// As [`open`](Self::open), but never makes a data key. Use it for programs that must change
    /// nothing.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`KeyringError::NoKeys`] if the app has no data key yet.
    pub async fn open_existing(
        backend: B,
        provider: impl KeyProvider,
        app: ClientId,
    ) -> Result<Self, KeyringError> {
        Self::open_or(backend, provider, app, IfNone::Refuse).await
    }

    async fn open_or(
        backend: B,
        provider: impl KeyProvider,
        app: ClientId,
        if_none: IfNone,
    ) -> Result<Self, KeyringError> {
        let (backend, app) = (Arc::new(backend), App::new(app));
        let keys = Keys::open(
            Arc::clone(&backend),
            Arc::new(provider),
            app.clone(),
            if_none,
        );
        let keys = keys.await?;
        Ok(Self {
            driver: Arc::new(Driver::new(backend, keys, app)),
            clock: Clock::default(),
            swept: Arc::default(),
            audit_keys: Arc::default(),
        })
    }

    /// Adds a cache for plain reads, which keeps sealed rows in memory for a short time.
    ///
    /// * The cache has no plaintext. A cached row is opened for each read, in microseconds.
    /// * A commit through this store, or through a clone of it, is visible to every read that
    ///   starts afterwards, as without a cache.
    /// * A commit by another process is visible within [`CacheOptions::max_age`]. So if another
    ///   process purges a tenant or puts it on hold, this process may hand out the token for at
    ///   most that long.
    /// * Decisions never use cached rows. Every operation that changes a row, or that finds nothing
    ///   to change, reads the database.
    /// * A response without any row is not cached, so the first installation of a tenant is visible
    ///   at once. A response with some rows is cached, and other rows stay missing in it. So a
    ///   token that another process adds to an installation, such as a user's, may be missing for
    ///   [`CacheOptions::max_age`].
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
    /// use slack_installs::backend::MemoryBackend;
    /// use slack_installs::{CacheOptions, ClientId, EncryptedStore, LocalKeyProvider, MasterKey};
    ///
    /// let provider = LocalKeyProvider::new(MasterKey::generate());
    /// let app = ClientId::new("100000000001.200000000002")?;
    /// let store = EncryptedStore::open(MemoryBackend::default(), provider, app).await?;
    /// let store = store.with_cache(CacheOptions::default());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_cache(mut self, options: CacheOptions) -> Self {
        self.driver = Arc::new(self.driver.with_cache(options));
        self
    }

    /// Reports to this witness each credential that is opened, each change of a tenant's rows, and
    /// each data key that is made or unwrapped: [`Audit`](crate::audit::Audit) records them.
    #[must_use]
    pub fn with_witness(mut self, witness: impl Witness) -> Self {
        let witness: Arc<dyn Witness> = Arc::new(witness);
        self.driver.keys.report_to(&witness);
        let change = |reporter| Reporter {
            witness: Some(witness),
            ..reporter
        };
        self.driver = Arc::new(self.driver.with_reporter(change));
        self
    }

    /// Returns the same store, which acts on behalf of this part of your app. Its witness is told
    /// the name, instead of what the caller's task says ([`AuditContext`]).
    #[must_use]
    pub fn as_actor(&self, name: &str) -> Self {
        let who = Some(AuditContext::actor(name));
        let change = |reporter| Reporter { who, ..reporter };
        Self {
            driver: Arc::new(self.driver.with_reporter(change)),
            ..self.clone()
        }
    }

    /// Replaces the clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        self.driver.keys.set_clock(clock.clone());
        Self { clock, ..self }
    }

    /// Sets the seed of the times at which data keys are fetched again, for tests that must be
    /// repeatable.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        self.driver.keys.set_seed(seed);
        self
    }

    /// Returns the backend, to inspect its rows.
    #[must_use]
    pub fn backend(&self) -> &B {
        &self.driver.backend
    }

    /// Makes a new data key the primary at once. The old one still opens what it sealed. Other
    /// processes seal under the new key within 15 minutes. [`keys`](Self::keys) rotates in phases,
    /// and removes the old key.
    ///
    /// The key provider must unwrap the new key before it is stored. Otherwise nothing is changed.
    ///
    /// # Errors
    ///
    /// [`KeyringError`], if the backend or the key provider does not respond. The new key may have
    /// been made. You can call this again: it makes another key, which is harmless.
    pub async fn rotate_data_key(&self) -> Result<KeyId, KeyringError> {
        let rotate = self.driver.keys.rotate(self.clock.now());
        self.keys().on_behalf(rotate).await
    }
}

impl<B> Clone for EncryptedStore<B> {
    fn clone(&self) -> Self {
        Self {
            driver: Arc::clone(&self.driver),
            clock: self.clock.clone(),
            swept: Arc::clone(&self.swept),
            audit_keys: Arc::clone(&self.audit_keys),
        }
    }
}

impl<B: Backend> fmt::Debug for EncryptedStore<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedStore")
            .field("driver", &self.driver)
            .finish_non_exhaustive()
    }
}

/// Why the keyring of a database cannot be used to open a store, to change its data key, or to
/// copy its rows.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// The database failed.
    #[error("the keyring cannot be read or written: {0}")]
    Backend(#[from] backend::Error),
    /// Rows are being copied into this database, and the copy is not finished
    /// ([`EncryptedStore::copy_to`]).
    #[error(
        "rows are being copied into this database: finish the copy (`slack-installs copy`, or \
         `finish_copy`) before you open the store"
    )]
    Copying,
    /// The target of a copy has rows of this app that no copy wrote, or its copy was finished.
    /// Nothing was changed in the target.
    #[error(
        "the target of the copy is already a store of this app: copy into a database without rows \
         of this app; nothing was changed"
    )]
    InUse,
    /// The key provider failed.
    #[error("the data key cannot be used: {0}")]
    Key(#[from] KeyError),
    /// The database has rows of this app, but not the keys that open them.
    #[error(
        "the database has rows of this app but not its keyring: restore the rows of the partition \
         `<client id>/keyring` from a backup"
    )]
    Lost,
    /// The key provider unwraps a new key to another key than it wrapped. Nothing was changed.
    #[error(
        "the key provider unwraps a new data key to another key than it wrapped, so the key is not \
         used: check the key provider; nothing was changed"
    )]
    Mismatch,
    /// The database has neither data keys nor rows of this app
    /// ([`open_existing`](EncryptedStore::open_existing)).
    #[error(
        "the database has no data keys yet for this app, so it has no installations either: check \
         the client id and the database; a new app makes its first data key when it starts"
    )]
    NoKeys,
    /// No copy into the target is in progress, or its keyring is incomplete.
    #[error(
        "no copy into the target is in progress, or its keyring is incomplete: copy all pages with \
         `copy_to` first"
    )]
    NotCopied,
    /// The keyring is older than this process or a row has seen: its manifest was replaced by an
    /// earlier one, or a row is sealed under a key that the manifest does not list for opening.
    /// Nothing was overwritten.
    #[error(
        "the keyring was rolled back, or a row was planted: a row is sealed under a data key that \
         the manifest does not list, or this process has seen a newer manifest; restore the \
         partition `<client id>/keyring` from the newest backup, and run `verify`; nothing was \
         overwritten"
    )]
    RolledBack,
    /// A row of the keyring is missing, or this version did not write it.
    #[error(
        "a row of the keyring is missing, was changed, or was written by a newer version of this \
         crate: restore the partition `<client id>/keyring` from a backup, or upgrade"
    )]
    Unreadable,
}

impl KeyringError {
    /// Returns whether the same call may succeed later without a change by the caller.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Backend(error) => error.is_transient(),
            Self::Key(error) => matches!(error, KeyError::Unavailable(_)),
            _ => false,
        }
    }
}

impl From<backend::Error> for store::Error {
    fn from(error: backend::Error) -> Self {
        match error {
            backend::Error::Conflict => Self::Conflict,
            backend::Error::Malformed(source) => Self::Unreadable(source),
            backend::Error::Unavailable(source) => Self::Unavailable(source),
        }
    }
}

impl From<KeyringError> for store::Error {
    fn from(error: KeyringError) -> Self {
        match error {
            KeyringError::Backend(error @ backend::Error::Unavailable(_)) => error.into(),
            KeyringError::RolledBack => Self::KeyringRolledBack(error.into()),
            // A key that cannot be used says nothing about the rows. A missing key, or a mistake in
            // the provider's permissions, must not look like damage, because damaged rows are
            // overwritten.
            _ => Self::Key(error.into()),
        }
    }
}

impl From<Cursor> for ListCursor {
    fn from(Cursor(cursor): Cursor) -> Self {
        Self(cursor)
    }
}

impl From<ListCursor> for Cursor {
    fn from(ListCursor(cursor): ListCursor) -> Self {
        Self(cursor)
    }
}
