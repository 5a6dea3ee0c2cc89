//! The one joint between typed records and sealed rows.
//!
//! Implements the ports of [`store`](crate::store) over any [`Backend`]. Nothing else in this
//! crate knows both sides.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use tokio::time::Instant;

use crate::backend::{self, Backend, Cursor};
use crate::clock::Clock;
use crate::seal::{KeyError, KeyId, KeyProvider};
use crate::store::{self, ListCursor};
use crate::tenant::ClientId;

mod cache;
mod chains;
mod commit;
mod driver;
mod grant_facts;
mod install_facts;
mod installations;
mod keys;
mod lifecycle;
mod lifecycle_facts;
mod malformed;
mod merge;
mod moving;
mod names;
mod record;
mod rotation_facts;
mod seen;
mod states;
mod sweep;
mod tenants;

pub use cache::CacheOptions;
use driver::Driver;
use keys::Keys;
pub use moving::{Copied, Pruned, VerifyReport};
use names::App;

/// Keeps installations and OAuth states in a backend, sealed. Cheap to clone.
///
/// Everything secret is encrypted before it reaches the backend, and bound to its app, tenant,
/// slot, version and visible metadata; there is no unencrypted mode.
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
/// Without a key provider there is no store:
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
}

impl<B: Backend> EncryptedStore<B> {
    /// Opens the store of one app, and makes its first data key if it has none.
    ///
    /// Several apps, and several processes of one app, may share a backend.
    ///
    /// # Errors
    ///
    /// [`KeyringError`] if the backend does not answer, or the key provider cannot open the data
    /// key that is there. Nothing is changed then.
    pub async fn open(
        backend: B,
        provider: impl KeyProvider,
        app: ClientId,
    ) -> Result<Self, KeyringError> {
        let (backend, app) = (Arc::new(backend), App::new(app));
        let keys = Keys::open(Arc::clone(&backend), Arc::new(provider), app.clone()).await?;
        Ok(Self {
            driver: Arc::new(Driver::new(backend, keys, app)),
            clock: Clock::default(),
            swept: Arc::default(),
        })
    }

    /// The same store, with a cache for plain reads: it keeps sealed rows in memory for a moment.
    ///
    /// * Never plaintext: a cached row is opened anew each time, in microseconds.
    /// * A commit through this store, or a clone of it, is seen by every read that starts
    ///   afterwards, as without a cache.
    /// * A commit by another process is seen within [`CacheOptions::max_age`]. So a token that was
    ///   purged elsewhere, or that is on hold since, may be handed out for that long, and no
    ///   longer.
    /// * No decision is taken on cached rows. What changes a row, or finds that nothing is to be
    ///   changed, has read the database.
    /// * A response without any row is not kept: the first installation of a tenant is seen at
    ///   once. One with some rows is kept with its gaps: a token that another process adds to an
    ///   installation (a user's, say) may be missing for [`CacheOptions::max_age`].
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
    pub fn with_cache(self, options: CacheOptions) -> Self {
        Self {
            driver: Arc::new(self.driver.with_cache(options)),
            ..self
        }
    }

    /// The same store, with another clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// The backend, to look at its rows.
    #[must_use]
    pub fn backend(&self) -> &B {
        &self.driver.backend
    }

    /// Makes a new data key the primary. The old one still opens what it sealed. Other processes
    /// seal under the new key within 15 minutes.
    ///
    /// # Errors
    ///
    /// [`KeyringError`] if the backend or the key provider does not answer. The key may have been
    /// made then; calling again makes another, which does no harm.
    pub async fn rotate_data_key(&self) -> Result<KeyId, KeyringError> {
        self.driver.keys.rotate().await
    }
}

impl<B> Clone for EncryptedStore<B> {
    fn clone(&self) -> Self {
        Self {
            driver: Arc::clone(&self.driver),
            clock: self.clock.clone(),
            swept: Arc::clone(&self.swept),
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

/// Why the keyring of a database cannot be used: to open a store, to change its data key, or to
/// copy its rows.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// The database did not do it.
    #[error("the keyring cannot be read or written: {0}")]
    Backend(#[from] backend::Error),
    /// Rows are being copied into this database, and the copy is not finished
    /// ([`EncryptedStore::copy_to`]).
    #[error("rows are being copied into this database, and the copy is not finished")]
    Copying,
    /// The target of a copy has rows of this app that no copy wrote, or its copy was finished.
    /// Nothing was changed in it.
    #[error("the target of the copy is already a store of this app; nothing was changed in it")]
    InUse,
    /// The key provider did not do it.
    #[error("the data key cannot be used: {0}")]
    Key(#[from] KeyError),
    /// The database has rows of this app, and not the keys that open them.
    #[error(
        "the database has rows of this app but not its keyring: restore the rows of the partition \
         `<client id>/keyring` from a backup"
    )]
    Lost,
    /// No copy into the target is in progress, or its keyring is incomplete.
    #[error("no copy into the target is in progress, or its keyring is incomplete")]
    NotCopied,
    /// A row of the keyring is not one that this version wrote.
    #[error("the keyring was changed, or was written by a newer version of this crate")]
    Unreadable,
}

impl KeyringError {
    /// Returns whether the same call may succeed later, with nothing changed by the caller.
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
            KeyringError::Backend(error) => error.into(),
            // A provider that refuses says nothing about the rows: one mistake in its
            // permissions must not look like every tenant's data being damaged.
            KeyringError::Key(KeyError::Refused { .. } | KeyError::Unavailable(_)) => {
                Self::Unavailable(error.into())
            }
            _ => Self::Unreadable(error.into()),
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
