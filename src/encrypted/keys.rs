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

use super::{OpenError, of_app, partition, slot};
use crate::backend::{self, Backend, Change, Expect, Metadata, Partition, Row, Slot, Version};
use crate::causes::with_causes;
use crate::seal::{DataKey, KeyContext, KeyError, KeyId, KeyProvider, Keyring, Looked, Sealed};
use crate::store;
use crate::tenant::ClientId;

/// Data keys of one app: in memory for a while, in the backend wrapped.
pub(super) struct Keys<B> {
    backend: Arc<B>,
    provider: Arc<dyn KeyProvider>,
    app: ClientId,
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
        app: ClientId,
    ) -> Result<Arc<Self>, OpenError> {
        let keys = Arc::new(Self {
            partition: partition(&app, KEYRING),
            backend,
            provider,
            app,
            ring: Keyring::default(),
            fetching: Mutex::default(),
        });
        let slots = [primary_slot(), copying()];
        let rows = keys.backend.read(&keys.partition, &slots).await?;
        match rows.as_slice() {
            [_, Some(_)] => return Err(OpenError::Copying),
            [Some(_), None] => {}
            _ if keys.is_lost().await? => return Err(OpenError::KeyringLost),
            _ => keys.make_primary().await?,
        }
        keys.fetch(None).await?;
        Ok(keys)
    }

    /// Whether rows of this app stand, and no key that could open them. A new key would hide that,
    /// and stand in the way of the old ones when they are restored.
    async fn is_lost(&self) -> Result<bool, OpenError> {
        let scope = of_app(&self.app);
        let mut from = None;
        loop {
            let page = self.backend.scan(&scope, from, PAGE).await?;
            if !page.rows.is_empty() || !page.malformed.is_empty() {
                // Another process may have begun meanwhile: it makes the key before any row.
                return Ok(self.read(&primary_slot()).await?.is_none());
            }
            from = page.next;
            if from.is_none() {
                return Ok(false);
            }
        }
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
    pub(super) async fn rotate(&self) -> Result<KeyId, OpenError> {
        let standing = self
            .read(&primary_slot())
            .await?
            .ok_or(OpenError::Keyring)?;
        let retired = Row {
            version: Version::mint(),
            ..standing.clone()
        };
        let retired_slot = retired_slot(Described::of(&standing)?.key_id()?);
        let (id, row) = self.new_primary().await?;
        let put = |slot, row, expect| Change::Put { slot, row, expect };
        let changes = [
            put(primary_slot(), row, Expect::Version(standing.version)),
            put(retired_slot, retired, Expect::Absent),
        ];
        self.backend.commit(&self.partition, &changes).await?;
        self.fetch(None).await?;
        Ok(id)
    }

    async fn unwrap(&self, id: KeyId, row: &Row) -> Result<DataKey, OpenError> {
        let wrapped = row.sealed.wrapped_key().map_err(|_| OpenError::Keyring)?;
        let context = KeyContext {
            app: self.app.as_str(),
            key_id: id,
        };
        Ok(self.provider.unwrap(wrapped, &context).await?)
    }

    /// Whether this store's keyring has the very row that stands in another one.
    pub(super) async fn has(&self, other: &Row) -> Result<bool, backend::Error> {
        let Ok(id) = Described::of(other).and_then(|described| described.key_id()) else {
            return Ok(false);
        };
        let slots = [primary_slot(), retired_slot(id)];
        let rows = self.backend.read(&self.partition, &slots).await?;
        // A row that retires gets another version, and keeps the key.
        let mut rows = rows.iter().flatten();
        Ok(rows.any(|row| row.sealed == other.sealed && row.metadata == other.metadata))
    }

    /// Whether the wrapped key in this row of the keyring opens.
    pub(super) async fn opens(&self, row: &Row) -> Result<(), OpenError> {
        self.unwrap(Described::of(row)?.key_id()?, row)
            .await
            .map(drop)
    }

    async fn settle(
        self: &Arc<Self>,
        wanted: Option<KeyId>,
    ) -> Result<(KeyId, Arc<DataKey>), store::Error> {
        match self.look(wanted) {
            Looked::Fresh(id, key) => Ok((id, key)),
            Looked::Ageing(id, key) => {
                self.refresh_in_background(wanted, id);
                Ok((id, key))
            }
            Looked::Missing => self.fetch_once(wanted).await,
        }
    }

    fn look(&self, wanted: Option<KeyId>) -> Looked {
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
        if let Looked::Fresh(id, key) | Looked::Ageing(id, key) = self.look(wanted) {
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
                tracing::warn!(error = with_causes(&error), key = %id, "a data key could not be refreshed ahead");
            }
        }));
    }

    /// Reads a key's row and has it unwrapped.
    ///
    /// A keyring that is gone is an error. Only [`open`](Self::open) makes a key, or a lost
    /// keyring would go unnoticed until the last old row failed to open.
    async fn fetch(&self, wanted: Option<KeyId>) -> Result<(KeyId, Arc<DataKey>), OpenError> {
        let mut slots = vec![primary_slot()];
        slots.extend(wanted.map(retired_slot));
        let rows = self.backend.read(&self.partition, &slots).await?;
        let mut rows = rows.into_iter();
        let primary = rows.next().flatten().ok_or(OpenError::Keyring)?;
        let primary_id = Described::of(&primary)?.key_id()?;
        let id = wanted.unwrap_or(primary_id);
        let row = match id == primary_id {
            true => primary,
            false => rows.next().flatten().ok_or(OpenError::Keyring)?,
        };
        let key = Arc::new(self.unwrap(id, &row).await?);
        self.ring
            .insert(id, Arc::clone(&key), id == primary_id, Instant::now());
        Ok((id, key))
    }

    /// Writes the app's first data key, unless another process just did.
    async fn make_primary(&self) -> Result<(), OpenError> {
        let (_, row) = self.new_primary().await?;
        let put = Change::Put {
            slot: primary_slot(),
            row,
            expect: Expect::Absent,
        };
        match self.backend.commit(&self.partition, &[put]).await {
            // Whoever wrote it, what stands there now is the primary.
            Ok(()) | Err(backend::Error::Conflict) => Ok(()),
            Err(error) => match self.read(&primary_slot()).await {
                Ok(Some(standing)) => self.confirm(standing).await,
                _ => Err(error.into()),
            },
        }
    }

    /// The database may have said that the row was written, but is not safe yet. Put over itself,
    /// it is, or there is another answer.
    async fn confirm(&self, standing: Row) -> Result<(), OpenError> {
        let put = Change::Put {
            slot: primary_slot(),
            expect: Expect::Version(standing.version),
            row: standing,
        };
        match self.backend.commit(&self.partition, &[put]).await {
            Ok(()) | Err(backend::Error::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn new_primary(&self) -> Result<(KeyId, Row), OpenError> {
        let id = KeyId::generate();
        let context = KeyContext {
            app: self.app.as_str(),
            key_id: id,
        };
        let wrapped = self.provider.wrap(&DataKey::generate(), &context).await?;
        let metadata = Described {
            v: 1,
            kind: KIND.into(),
            key: id.to_string(),
        }
        .to_metadata();
        let sealed = Sealed::from_wrapped_key(&wrapped);
        Ok((
            id,
            Row {
                version: Version::mint(),
                metadata,
                sealed,
                due: None,
            },
        ))
    }

    async fn read(&self, slot: &Slot) -> Result<Option<Row>, OpenError> {
        let rows = self
            .backend
            .read(&self.partition, std::slice::from_ref(slot))
            .await?;
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
struct Described {
    v: u32,
    kind: String,
    key: String,
}

impl Described {
    fn of(row: &Row) -> Result<Self, OpenError> {
        let described: Self =
            serde_json::from_str(row.metadata.as_str()).map_err(|_| OpenError::Keyring)?;
        match described.v == 1 && described.kind == KIND {
            true => Ok(described),
            false => Err(OpenError::Keyring),
        }
    }

    fn key_id(&self) -> Result<KeyId, OpenError> {
        KeyId::parse(&self.key).ok_or(OpenError::Keyring)
    }

    fn to_metadata(&self) -> Metadata {
        Metadata::new(serde_json::to_string(self).expect("plain fields always serialise"))
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
        OpenError::Key(error).into()
    }
}

/// The partition of an app's data keys.
pub(super) const KEYRING: &str = "keyring";

const KIND: &str = "data_key";

/// For how long after a failed call to the key provider nobody calls it again: long enough for
/// everybody who waited for that call, short enough to notice that it is back.
const FAILURE_IS_FRESH: Duration = Duration::from_secs(1);

/// Rows looked at in one step, when a store is opened for the first time.
const PAGE: usize = 1000;
