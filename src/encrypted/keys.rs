//! The data keys of an app: their rows in the keyring, and their copies in memory.
//!
//! Each key has a row `key/<id>`, which never moves. The row `manifest` lists the keys and says
//! which of them seals. Both are written in one commit. Only a listed key is passed to the key
//! provider. If the slot `copying` has a row, rows are being copied into this database, and it is
//! not a store yet.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::KeyringError;
use super::names::{App, slot};
use crate::backend::{self, Backend, Key, Partition, Row, Scope, Slot, Version};
use crate::clock::Clock;
use crate::error_chain::error_chain;
use crate::metrics;
use crate::random;
use crate::seal::{DataKey, Held, KeyContext, KeyError, KeyId, KeyProvider, Keyring, Lookup};
use crate::store::{self, ActKind, AuditContext, Witness};

mod change;
mod flights;
mod inspect;
mod key_rows;
mod manifest;
mod processes;
mod witnessed;

pub(super) use change::{RewrapOutcome, overtaken};
use flights::{Failure, Flight, Flights};
pub use inspect::InspectedKey;
use key_rows::{WrappedKey, key_slot};
pub use manifest::KeyState;
use manifest::Manifest;
pub(super) use manifest::{ListedKey, manifest_slot};
pub use processes::KeyProcess;
pub(super) use processes::{DEAD_AFTER, is_process};
use witnessed::KeyWitness;

/// The data keys of one app: unwrapped in memory for a limited time, wrapped in the backend.
pub(super) struct Keys<B> {
    backend: Arc<B>,
    provider: Arc<dyn KeyProvider>,
    app: App,
    partition: Partition,
    ring: Keyring,
    /// The newest manifest that this process has seen. It never goes back to an older one.
    newest: RwLock<Arc<Manifest>>,
    flights: Flights,
    loading: Mutex<Loading>,
    /// The number of callers that asked for the current manifest.
    asked: AtomicU64,
    /// The id of this process, in hex.
    process: String,
    clock: RwLock<Clock>,
    witness: KeyWitness,
}

/// The reads of the manifest, of which only one runs at a time.
#[derive(Default)]
struct Loading {
    /// The callers, counted by [`Keys::asked`], for whom the last read was recent enough.
    covers: u64,
    failure: Option<Failure>,
}

/// The manifest that is stored, and the version of its row.
pub(super) struct Loaded {
    manifest: Arc<Manifest>,
    version: Version,
}

impl Loaded {
    /// Returns the key of this id, if the manifest lists it.
    pub(super) fn key(&self, id: KeyId) -> Option<ListedKey> {
        self.manifest.key(id).copied()
    }
}

/// What to do with a database that has no keyring and no rows of the app.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum IfNone {
    MakeFirst,
    Refuse,
}

impl<B: Backend> Keys<B> {
    pub(super) async fn open(
        backend: Arc<B>,
        provider: Arc<dyn KeyProvider>,
        app: App,
        if_none: IfNone,
    ) -> Result<Arc<Self>, KeyringError> {
        let keys = Arc::new(Self {
            partition: app.keyring(),
            backend,
            provider,
            app,
            ring: Keyring::default(),
            newest: RwLock::default(),
            flights: Flights::default(),
            loading: Mutex::default(),
            asked: AtomicU64::default(),
            process: format!("{:032x}", u128::from_be_bytes(random::bytes())),
            clock: RwLock::default(),
            witness: KeyWitness::default(),
        });
        let slots = [manifest_slot(), copying()];
        for _ in 0..ATTEMPTS {
            let rows = keys.backend.read(&keys.partition, &slots).await?;
            let is_ready = match rows.as_slice() {
                [_, Some(_)] => return Err(KeyringError::Copying),
                [Some(_), None] => keys.load().await.map(|_| true)?,
                _ if keys.is_lost().await? => return Err(KeyringError::Lost),
                _ if if_none == IfNone::Refuse => return Err(KeyringError::NoKeys),
                _ => keys.make_first().await?,
            };
            if is_ready {
                return Ok(keys);
            }
        }
        let again = "other processes changed the keyring 3 times; try again".into();
        Err(backend::Error::Unavailable(again).into())
    }

    /// Replaces the clock, by which the processes of the app judge whether another one runs.
    pub(super) fn set_clock(&self, clock: Clock) {
        *self.clock.write().unwrap_or_else(PoisonError::into_inner) = clock;
    }

    /// Returns whether the app has rows but no manifest. A new key would hide this, and would
    /// prevent restoring the old keys.
    async fn is_lost(&self) -> Result<bool, KeyringError> {
        // Another process may have started meanwhile. It writes the keyring before any other row.
        Ok(
            has_rows(&*self.backend, &self.app.named(""), |_| false).await?
                && self.read(manifest_slot()).await?.is_none(),
        )
    }

    /// Makes the times at which keys are fetched again repeatable.
    #[cfg(feature = "testing")]
    pub(super) fn set_seed(&self, seed: u64) {
        // The middle bits of a product depend on all bits of the seed.
        let mixed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
        self.ring.set_share(u16::try_from(mixed).expect("16 bits"));
    }

    /// Returns the key that seals.
    pub(super) async fn primary(self: &Arc<Self>) -> Result<(KeyId, Arc<DataKey>), store::Error> {
        let found = || self.used(self.ring.primary(Instant::now()));
        if let Some(found) = found() {
            return Ok(found);
        }
        let is_enough = |_: &Loading| self.ring.has_primary(Instant::now());
        self.load_if_not(is_enough).await?;
        let primary = self.newest().primary().copied();
        let primary = primary.ok_or(KeyringError::Unreadable)?;
        Ok((primary.id, self.fetch(primary.id, primary.epoch).await?))
    }

    /// Returns the key of this id, for opening.
    pub(super) async fn get(self: &Arc<Self>, id: KeyId) -> Result<Arc<DataKey>, store::Error> {
        let listed = |keys: &Self| keys.newest().opens(id).copied();
        let key = match listed(self) {
            Some(key) => key,
            // Another process may just have added the key.
            None => {
                let mine = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
                self.load_if_not(|it: &Loading| it.covers >= mine).await?;
                listed(self).ok_or(KeyringError::RolledBack)?
            }
        };
        if let Some((_, key)) = self.used(self.ring.get(id, Instant::now())) {
            return Ok(key);
        }
        Ok(self.fetch(id, key.epoch).await?)
    }

    /// Returns the key that was found. If it is time to fetch it again, does so in the background.
    fn used(self: &Arc<Self>, found: Lookup) -> Option<(KeyId, Arc<DataKey>)> {
        match found {
            Lookup::Fresh(id, key) => Some((id, key)),
            Lookup::Ageing(id, key) => {
                let keys = Arc::clone(self);
                drop(tokio::spawn(async move { keys.refresh(id).await }));
                Some((id, key))
            }
            Lookup::Missing => None,
        }
    }

    /// Reads the manifest and fetches this key again. A fault of the primary key does not concern
    /// the other ones.
    async fn refresh(self: &Arc<Self>, id: KeyId) {
        let began = Instant::now();
        if let Err(error) = self.load_if_not(|_: &Loading| false).await {
            let chain = error_chain(&error);
            if error.is_transient() {
                tracing::warn!(error = chain, "cannot read the keyring now");
            } else {
                tracing::error!(error = chain, "the keyring cannot be read");
            }
        }
        let Some(epoch) = self.newest().key(id).map(|key| key.epoch) else {
            return;
        };
        if let Err(error) = self.fetch_since(id, epoch, Some(began)).await {
            let chain = error_chain(&error);
            if error.is_transient() {
                tracing::warn!(error = chain, key = %id, "cannot fetch a data key again now");
            } else {
                tracing::error!(error = chain, key = %id, "a data key cannot be fetched again");
            }
        }
        if let Err(error) = self.follow().await {
            let error = error_chain(&error);
            tracing::warn!(error, "cannot prepare for the next data key");
        }
    }

    /// Unwraps the keys that may be promoted next, and tells other processes so.
    async fn follow(self: &Arc<Self>) -> Result<(), KeyringError> {
        let newest = self.newest();
        let keys = newest.keys().iter();
        for key in keys.filter(|key| key.state == KeyState::Distributed) {
            if let Err(error) = self.fetch(key.id, key.epoch).await {
                let error = error_chain(&error);
                tracing::error!(error, key = %key.id, "cannot unwrap the next data key");
            }
        }
        self.announce(self.now()).await
    }

    fn now(&self) -> SystemTime {
        let clock = self.clock.read().unwrap_or_else(PoisonError::into_inner);
        clock.now()
    }

    /// Reports to this witness what the key provider does.
    pub(super) fn report_to(&self, witness: &Arc<dyn Witness>) {
        self.witness.set(witness);
    }

    /// Returns when the primary key became the primary, as far as this process knows.
    pub(super) fn primary_since(&self) -> Option<SystemTime> {
        self.newest().primary_since()
    }

    fn newest(&self) -> Arc<Manifest> {
        Arc::clone(&self.newest.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the manifest, unless another caller has just done so.
    async fn load_if_not(
        self: &Arc<Self>,
        is_enough: impl Fn(&Loading) -> bool,
    ) -> Result<(), KeyringError> {
        let mut loading = self.loading.lock().await;
        if is_enough(&loading) {
            return Ok(());
        }
        if let Some(error) = loading.failure.as_ref().and_then(Failure::fresh) {
            return Err(error);
        }
        let covers = self.asked.load(Ordering::SeqCst);
        match self.load().await {
            Ok(_) => {
                loading.covers = covers;
                loading.failure = None;
                Ok(())
            }
            Err(error) => {
                loading.failure = Failure::of(&error);
                Err(error)
            }
        }
    }

    /// Reads the manifest.
    ///
    /// A missing one is an error. Only [`open`](Self::open) makes the first one. Otherwise the
    /// loss of a keyring would stay unnoticed until the last old row failed to open.
    pub(super) async fn load(self: &Arc<Self>) -> Result<Loaded, KeyringError> {
        match self.load_once().await {
            // Another caller may have seen a newer manifest while this one was read.
            Err(KeyringError::RolledBack) => self.load_once().await,
            loaded => loaded,
        }
    }

    async fn load_once(self: &Arc<Self>) -> Result<Loaded, KeyringError> {
        let then = Instant::now();
        let row = self.read(manifest_slot()).await?;
        let row = row.ok_or(KeyringError::Unreadable)?;
        let id = row.sealed.key_id().map_err(|_| KeyringError::Unreadable)?;
        let key = self.key_of_manifest(id).await?;
        let manifest = Manifest::open(&self.app, &row, (id, key.epoch), &key.key);
        let manifest = self.adopt(manifest.ok_or(KeyringError::Unreadable)?, then)?;
        let version = row.version;
        Ok(Loaded { manifest, version })
    }

    /// Returns the key that a manifest names as its primary. No manifest lists it yet if another
    /// process has just made it.
    async fn key_of_manifest(self: &Arc<Self>, id: KeyId) -> Result<Held, KeyringError> {
        if let Some(held) = self.ring.held(id, Instant::now()) {
            return Ok(held);
        }
        let newest = self.newest();
        let epoch = match newest.key(id) {
            Some(key) => key.epoch,
            None => {
                let row = self.read(key_slot(id)).await?;
                WrappedKey::of(&row.ok_or(KeyringError::Unreadable)?)?.epoch
            }
        };
        // A key of a lower epoch than the newest primary was retired, or is planted.
        if epoch < newest.rank().0 {
            return Err(KeyringError::RolledBack);
        }
        self.fetch(id, epoch).await?;
        let held = self.ring.held(id, Instant::now());
        held.ok_or(KeyringError::Unreadable)
    }

    /// Makes this manifest the newest one, unless this process has seen a newer one.
    fn adopt(&self, manifest: Manifest, then: Instant) -> Result<Arc<Manifest>, KeyringError> {
        let mut newest = self.newest.write().unwrap_or_else(PoisonError::into_inner);
        let is_older = manifest.rank() < newest.rank();
        if is_older || (manifest.rank() == newest.rank() && manifest != **newest) {
            return Err(KeyringError::RolledBack);
        }
        if let Some(primary) = manifest.primary() {
            self.ring.confirm_primary(primary.id, then);
        }
        *newest = Arc::new(manifest);
        Ok(Arc::clone(&newest))
    }

    /// Returns the key of this id and epoch. Calls the provider if it is not in memory.
    async fn fetch(self: &Arc<Self>, id: KeyId, epoch: u64) -> Result<Arc<DataKey>, KeyringError> {
        self.fetch_since(id, epoch, None).await
    }

    /// Returns the key of this id and epoch, unwrapped since then. Of many callers, one calls the
    /// provider, in a task of its own: if that caller is dropped, the others still get the result.
    async fn fetch_since(
        self: &Arc<Self>,
        id: KeyId,
        epoch: u64,
        since: Option<Instant>,
    ) -> Result<Arc<DataKey>, KeyringError> {
        let flight: Flight = self.flights.of(id);
        let mut last_failure = flight.lock_owned().await;
        let held = self.ring.held(id, Instant::now());
        let is_recent = |held: &Held| since.is_none_or(|since| held.since >= since);
        if let Some(held) = held.filter(|held| held.epoch == epoch && is_recent(held)) {
            return Ok(held.key);
        }
        if let Some(error) = last_failure.as_ref().and_then(Failure::fresh) {
            return Err(error);
        }
        let keys = Arc::clone(self);
        let fetched = AuditContext::current().scope(async move {
            let fetched = keys.unwrap_stored(id, epoch).await;
            *last_failure = fetched.as_ref().err().and_then(Failure::of);
            fetched
        });
        let fetched = tokio::spawn(fetched).await;
        fetched.unwrap_or_else(|_| Err(unavailable("the call to the key provider panicked")))
    }

    /// Reads the row of this key, and unwraps the key.
    async fn unwrap_stored(&self, id: KeyId, epoch: u64) -> Result<Arc<DataKey>, KeyringError> {
        let row = self.read(key_slot(id)).await?;
        let row = row.ok_or(KeyringError::Unreadable)?;
        let wrapped = WrappedKey::of(&row)?;
        if (wrapped.id, wrapped.epoch) != (id, epoch) {
            return Err(KeyringError::Unreadable);
        }
        let key = Arc::new(self.unwrap(&wrapped).await?);
        self.ring
            .insert(id, epoch, Arc::clone(&key), Instant::now());
        Ok(key)
    }

    async fn unwrap(&self, wrapped: &WrappedKey<'_>) -> Result<DataKey, KeyringError> {
        let context = self.context(wrapped.id, wrapped.epoch);
        let unwrapped = self.provider.unwrap(wrapped.wrapped, &context);
        let unwrapped = in_time(unwrapped).await;
        self.witness
            .report(ActKind::Unwrap, wrapped.id, unwrapped.is_ok());
        unwrapped
    }

    fn context(&self, key_id: KeyId, epoch: u64) -> KeyContext<'_> {
        KeyContext {
            app: self.app.as_str(),
            key_id,
            epoch,
        }
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

/// Waits for a call to the key provider, for [`PROVIDER_TIMEOUT`] at most.
async fn in_time<T>(call: impl Future<Output = Result<T, KeyError>>) -> Result<T, KeyringError> {
    let outcome = timeout(PROVIDER_TIMEOUT, call).await;
    metrics::KEY_PROVIDER_CALLS.add([match &outcome {
        Ok(Ok(_)) => "ok",
        Ok(Err(error)) => error.name(),
        Err(_) => "timeout",
    }]);
    match outcome {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(unavailable("the key provider did not respond within 2 s")),
    }
}

fn unavailable(reason: &'static str) -> KeyringError {
    KeyringError::Key(KeyError::Unavailable(reason.into()))
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

/// The slot of the note that rows are being copied into this database.
pub(super) fn copying() -> Slot {
    slot("copying")
}

/// The rows of one page. A backend may have to skip rows of other apps.
const PAGE: usize = 1000;

/// How often opening a store tries to write its first data key, and how often a change of the
/// keyring is tried while other processes change it.
pub(super) const ATTEMPTS: usize = 3;

/// The time limit of one call to the key provider. Slack expects a response within 3 s.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(2);
