//! The rows of the keyring: the wrapped data keys, one primary and the others retired.
//!
//! The slot `primary` has the key that seals. The slots `key/<id>` have the retired keys. Rotation
//! moves the old primary to such a slot in the commit that writes the new one. If the slot
//! `copying` has a row, rows are being copied into this database, and it is not a store yet.

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

/// The data keys of one app: unwrapped in memory for a limited time, wrapped in the backend.
pub(super) struct Keys<B> {
    backend: Arc<B>,
    provider: Arc<dyn KeyProvider>,
    app: App,
    partition: Partition,
    ring: Keyring,
    /// Locked while a key is fetched, so that many callers cause one call to the provider.
    /// Holds when a fetch failed last, so that callers who waited for it do not all try again.
    fetching: Mutex<Option<Instant>>,
}

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
        let again = "other processes changed the keyring 3 times; try again".into();
        Err(backend::Error::Unavailable(again).into())
    }

    /// Returns whether the app has rows but no key that could open them. A new key would hide this,
    /// and would prevent restoring the old keys.
    async fn is_lost(&self) -> Result<bool, KeyringError> {
        // Another process may have started meanwhile. It writes the key before any other row.
        Ok(
            has_rows(&*self.backend, &self.app.named(""), |_| false).await?
                && self.read(primary_slot()).await?.is_none(),
        )
    }

    /// Returns the key that seals.
    pub(super) async fn primary(self: &Arc<Self>) -> Result<(KeyId, Arc<DataKey>), store::Error> {
        self.settle(None).await
    }

    /// Returns the key of this id, for opening.
    pub(super) async fn get(self: &Arc<Self>, id: KeyId) -> Result<Arc<DataKey>, store::Error> {
        Ok(self.settle(Some(id)).await?.1)
    }

    /// Makes a new key the primary, and keeps the old one as retired.
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
            epoch: 1,
        };
        Ok(self.provider.unwrap(wrapped, &context).await?)
    }

    /// Returns whether this store's keyring has the same wrapped key as a row of another keyring.
    pub(super) async fn has(&self, other: &Row) -> Result<bool, backend::Error> {
        let Ok(id) = key_id(other) else {
            return Ok(false);
        };
        let slots = [primary_slot(), retired_slot(id)];
        let rows = self.backend.read(&self.partition, &slots).await?;
        // A key that is retired gets a row with another version.
        let mut rows = rows.iter().flatten();
        Ok(rows.any(|row| row.sealed == other.sealed && row.metadata == other.metadata))
    }

    /// Unwraps the key in this row of the keyring, to check it.
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

    /// Fetches a key, or waits for another caller who is fetching it.
    async fn fetch_once(
        &self,
        wanted: Option<KeyId>,
    ) -> Result<(KeyId, Arc<DataKey>), store::Error> {
        let mut last_failure = self.fetching.lock().await;
        if let Lookup::Fresh(id, key) | Lookup::Ageing(id, key) = self.look(wanted) {
            return Ok((id, key));
        }
        if last_failure.is_some_and(|failed| failed.elapsed() < FAILURE_IS_FRESH) {
            return Err(store::Error::Unavailable(
                "the key provider failed less than a second ago: try again".into(),
            ));
        }
        match self.fetch(wanted).await {
            Ok(found) => Ok(found),
            Err(error) => {
                let error = store::Error::from(error);
                // An unknown key id is a fault of the row that names it, not of the provider.
                *last_failure = error.is_transient().then(Instant::now);
                Err(error)
            }
        }
    }

    fn refresh_in_background(self: &Arc<Self>, wanted: Option<KeyId>, id: KeyId) {
        let keys = Arc::clone(self);
        drop(tokio::spawn(async move {
            if let Err(error) = keys.fetch(wanted).await {
                let error = error_chain(&error);
                tracing::warn!(error, key = %id, "cannot refresh a data key in the background");
            }
        }));
    }

    /// Reads a key's row and unwraps the key.
    ///
    /// A missing keyring is an error. Only [`open`](Self::open) makes a first key. Otherwise the
    /// loss of a keyring would stay unnoticed until the last old row failed to open.
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

    /// Writes the app's first data key. Returns `false` if another process has just written one.
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
            epoch: 1,
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

/// The metadata of a keyring's row.
#[derive(Deserialize, Serialize)]
struct KeyFacts {
    key: String,
}

fn key_id(row: &Row) -> Result<KeyId, KeyringError> {
    let facts = record::facts(row.metadata.as_str(), DATA_KEY);
    let id = facts.and_then(|KeyFacts { key }| KeyId::parse(&key));
    id.ok_or(KeyringError::Unreadable)
}

/// Returns whether a backend has any row of this scope that `besides` does not accept. Malformed
/// rows count.
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

/// The slot of the note that rows are being copied into this database.
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

/// The kind of the keyring's rows.
const DATA_KEY: &str = "data_key";

/// The rows of one page. A backend may have to skip rows of other apps.
const PAGE: usize = 1000;

/// How often opening a store tries to write its first data key.
const ATTEMPTS: usize = 3;

/// How long no caller calls the key provider again after a failed call. All callers that waited for
/// that call return within this time, and a provider that recovers is noticed soon.
const FAILURE_IS_FRESH: Duration = Duration::from_secs(1);
