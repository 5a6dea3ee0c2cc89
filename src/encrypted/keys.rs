//! The keyring's rows: data keys, wrapped by the provider, one primary and the rest retired.
//!
//! Slot `primary` is the key that seals; `key/<id>` are retired ones. Rotation moves the old
//! primary there in the same commit that writes the new one. Slot `copying` says that rows are
//! being copied into this database, and that it is no store yet.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::KeyringError;
use super::commit::commit;
use super::names::{App, slot};
use super::record;
use crate::backend::{
    self, Backend, Change, Expect, Key, Metadata, Partition, Row, Scope, Slot, Version,
};
use crate::error_chain::error_chain;
use crate::seal::{DataKey, KeyContext, KeyError, KeyId, KeyProvider, Keyring, Lookup, Sealed};
use crate::store;

/// Data keys of one app: in memory for a while, in the backend wrapped.
pub(super) struct Keys<B> {
    backend: Arc<B>,
    provider: Arc<dyn KeyProvider>,
    app: App,
    partition: Partition,
    ring: Keyring,
    /// Held while a key is fetched, so that many callers make one call to the provider.
    fetching: Mutex<LastFailure>,
}

/// When fetching failed last, so that callers who waited for it do not all try again.
#[derive(Default)]
struct LastFailure(Option<Instant>);

impl<B: Backend> Keys<B> {
    pub(super) async fn open(
        backend: Arc<B>,
        provider: Arc<dyn KeyProvider>,
        app: App,
    ) -> Result<Arc<Self>, KeyringError> {
        let keys = Arc::new(Self {
            partition: app.keyring(),
            backend,
            provider,
            app,
            ring: Keyring::default(),
            fetching: Mutex::default(),
        });
        let slots = [primary_slot(), copying()];
        for _ in 0..ATTEMPTS {
            let rows = keys.backend.read(&keys.partition, &slots).await?;
            let is_there = match rows.as_slice() {
                [_, Some(_)] => return Err(KeyringError::Copying),
                [Some(_), None] => true,
                _ if keys.is_lost().await? => return Err(KeyringError::Lost),
                _ => keys.make_primary().await?,
            };
            if is_there {
                keys.fetch(None).await?;
                return Ok(keys);
            }
        }
        let again = "the first data key was not written".into();
        Err(backend::Error::Unavailable(again).into())
    }

    /// Whether rows of this app stand, and no key that could open them. A new key would hide that,
    /// and stand in the way of the old ones when they are restored.
    async fn is_lost(&self) -> Result<bool, KeyringError> {
        // Another process may have begun meanwhile: it makes the key before any row.
        Ok(
            has_rows(&*self.backend, &self.app.named(""), |_| false).await?
                && self.read(primary_slot()).await?.is_none(),
        )
    }

    /// The key that seals.
    pub(super) async fn primary(self: &Arc<Self>) -> Result<(KeyId, Arc<DataKey>), store::Error> {
        self.settle(None).await
    }

    /// The key of this id, which opens.
    pub(super) async fn get(self: &Arc<Self>, id: KeyId) -> Result<Arc<DataKey>, store::Error> {
        Ok(self.settle(Some(id)).await?.1)
    }

    /// Puts a new primary in place of the old one, which is kept as retired.
    pub(super) async fn rotate(&self) -> Result<KeyId, KeyringError> {
        let old = self.read(primary_slot()).await?;
        let old = old.ok_or(KeyringError::Unreadable)?;
        let expect = Expect::Version(old.version);
        let retired_slot = retired_slot(key_id(&old)?);
        let retired = Row {
            version: Version::mint(),
            ..old
        };
        let (id, row) = self.new_primary().await?;
        let put = |slot, row, expect| Change::Put { slot, row, expect };
        let changes = [
            put(primary_slot(), row, expect),
            put(retired_slot, retired, Expect::Absent),
        ];
        self.backend.commit(&self.partition, &changes).await?;
        self.fetch(None).await?;
        Ok(id)
    }

    async fn unwrap(&self, id: KeyId, row: &Row) -> Result<DataKey, KeyringError> {
        let wrapped = row
            .sealed
            .wrapped_key()
            .map_err(|_| KeyringError::Unreadable)?;
        let context = KeyContext {
            app: self.app.as_str(),
            key_id: id,
        };
        Ok(self.provider.unwrap(wrapped, &context).await?)
    }

    /// Whether this store's keyring has the very row that stands in another one.
    pub(super) async fn has(&self, other: &Row) -> Result<bool, backend::Error> {
        let Ok(id) = key_id(other) else {
            return Ok(false);
        };
        let slots = [primary_slot(), retired_slot(id)];
        let rows = self.backend.read(&self.partition, &slots).await?;
        // A row that retires gets another version, and keeps the key.
        let mut rows = rows.iter().flatten();
        Ok(rows.any(|row| row.sealed == other.sealed && row.metadata == other.metadata))
    }

    /// Whether the wrapped key in this row of the keyring opens.
    pub(super) async fn opens(&self, row: &Row) -> Result<(), KeyringError> {
        self.unwrap(key_id(row)?, row).await.map(drop)
    }

    async fn settle(
        self: &Arc<Self>,
        wanted: Option<KeyId>,
    ) -> Result<(KeyId, Arc<DataKey>), store::Error> {
        match self.look(wanted) {
            Lookup::Fresh(id, key) => Ok((id, key)),
            Lookup::Ageing(id, key) => {
                self.refresh_in_background(wanted, id);
                Ok((id, key))
            }
            Lookup::Missing => self.fetch_once(wanted).await,
        }
    }

    fn look(&self, wanted: Option<KeyId>) -> Lookup {
        let now = Instant::now();
        match wanted {
            Some(id) => self.ring.get(id, now),
            None => self.ring.primary(now),
        }
    }

    /// Fetches a key, or waits for whoever is fetching.
    async fn fetch_once(
        &self,
        wanted: Option<KeyId>,
    ) -> Result<(KeyId, Arc<DataKey>), store::Error> {
        let mut last_failure = self.fetching.lock().await;
        if let Lookup::Fresh(id, key) | Lookup::Ageing(id, key) = self.look(wanted) {
            return Ok((id, key));
        }
        if last_failure
            .0
            .is_some_and(|failed| failed.elapsed() < FAILURE_IS_FRESH)
        {
            return Err(store::Error::Unavailable(
                "the key provider just failed".into(),
            ));
        }
        match self.fetch(wanted).await {
            Ok(found) => Ok(found),
            Err(error) => {
                let error = store::Error::from(error);
                // A row that names an unknown key is that row's fault, not the provider's.
                last_failure.0 = error.is_transient().then(Instant::now);
                Err(error)
            }
        }
    }

    fn refresh_in_background(self: &Arc<Self>, wanted: Option<KeyId>, id: KeyId) {
        let keys = Arc::clone(self);
        drop(tokio::spawn(async move {
            if let Err(error) = keys.fetch(wanted).await {
                let error = error_chain(&error);
                tracing::warn!(error, key = %id, "a data key could not be refreshed ahead");
            }
        }));
    }

    /// Reads a key's row and has it unwrapped.
    ///
    /// A keyring that is gone is an error. Only [`open`](Self::open) makes a key, or a lost
    /// keyring would go unnoticed until the last old row failed to open.
    async fn fetch(&self, wanted: Option<KeyId>) -> Result<(KeyId, Arc<DataKey>), KeyringError> {
        let mut slots = vec![primary_slot()];
        slots.extend(wanted.map(retired_slot));
        let rows = self.backend.read(&self.partition, &slots).await?;
        let mut rows = rows.into_iter();
        let primary = rows.next().flatten().ok_or(KeyringError::Unreadable)?;
        let primary_id = key_id(&primary)?;
        let id = wanted.unwrap_or(primary_id);
        let row = if id == primary_id {
            primary
        } else {
            rows.next().flatten().ok_or(KeyringError::Unreadable)?
        };
        let key = Arc::new(self.unwrap(id, &row).await?);
        self.ring
            .insert(id, Arc::clone(&key), id == primary_id, Instant::now());
        Ok((id, key))
    }

    /// Writes the app's first data key. Returns `false` if another process just did, or if the
    /// commit was lost.
    async fn make_primary(&self) -> Result<bool, KeyringError> {
        let (_, row) = self.new_primary().await?;
        let put = Change::Put {
            slot: primary_slot(),
            row,
            expect: Expect::Absent,
        };
        match commit(&*self.backend, &self.partition, &[put]).await {
            Ok(()) => Ok(true),
            Err(backend::Error::Conflict) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn new_primary(&self) -> Result<(KeyId, Row), KeyringError> {
        let id = KeyId::generate();
        let context = KeyContext {
            app: self.app.as_str(),
            key_id: id,
        };
        let wrapped = self.provider.wrap(&DataKey::generate(), &context).await?;
        let facts = KeyFacts {
            key: id.to_string(),
        };
        let row = Row {
            version: Version::mint(),
            metadata: Metadata::new(record::metadata(DATA_KEY, &facts)),
            sealed: Sealed::from_wrapped_key(&wrapped),
            due: None,
        };
        Ok((id, row))
    }

    async fn read(&self, slot: Slot) -> Result<Option<Row>, KeyringError> {
        let rows = self.backend.read(&self.partition, &[slot]).await?;
        Ok(rows.into_iter().next().flatten())
    }
}

impl<B> fmt::Debug for Keys<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("provider", &self.provider)
            .field("ring", &self.ring)
            .finish_non_exhaustive()
    }
}

/// What a keyring row's metadata says.
#[derive(Deserialize, Serialize)]
struct KeyFacts {
    key: String,
}

fn key_id(row: &Row) -> Result<KeyId, KeyringError> {
    let facts = record::facts(row.metadata.as_str(), DATA_KEY);
    let id = facts.and_then(|KeyFacts { key }| KeyId::parse(&key));
    id.ok_or(KeyringError::Unreadable)
}

/// Returns whether a backend has any row of this scope besides those, malformed ones included.
pub(super) async fn has_rows<B: Backend + ?Sized>(
    backend: &B,
    scope: &Scope,
    besides: impl Fn(&Key) -> bool + Send + Sync,
) -> Result<bool, backend::Error> {
    let mut from = None;
    loop {
        let page = backend.scan(scope, from, PAGE).await?;
        if !page.malformed.is_empty() || !page.rows.iter().all(|(key, _)| besides(key)) {
            return Ok(true);
        }
        from = page.next;
        if from.is_none() {
            return Ok(false);
        }
    }
}

pub(super) fn primary_slot() -> Slot {
    slot("primary")
}

/// Where a note stands while rows are copied into this database.
pub(super) fn copying() -> Slot {
    slot("copying")
}

fn retired_slot(id: KeyId) -> Slot {
    slot(&format!("key/{id}"))
}

impl From<KeyError> for store::Error {
    fn from(error: KeyError) -> Self {
        KeyringError::Key(error).into()
    }
}

/// The kind of these rows.
const DATA_KEY: &str = "data_key";

/// Rows looked at in one step: a backend may have to skip those of other apps.
const PAGE: usize = 1000;

/// How often a store is begun to be opened, when its first data key is not there yet.
const ATTEMPTS: usize = 3;

/// For how long after a failed call to the key provider nobody calls it again: long enough for
/// everybody who waited for that call, short enough to notice that it is back.
const FAILURE_IS_FRESH: Duration = Duration::from_secs(1);
