//! Changes of the keyring. Each is one commit, which also writes the manifest.

use std::sync::Arc;
use std::time::SystemTime;

use subtle::ConstantTimeEq as _;
use tokio::time::Instant;

use super::key_rows::{WrappedKey, key_row, key_slot};
use super::{ATTEMPTS, Keys, ListedKey, Loaded, Manifest, in_time, manifest_slot};
use crate::backend::{self, Backend, Change, Expect, Row};
use crate::encrypted::KeyringError;
use crate::encrypted::commit::commit;
use crate::seal::wrapped::wrapper;
use crate::seal::{DataKey, KeyId};
use crate::store::ActKind;

/// A data key that is not stored yet. The provider has unwrapped it.
struct NewKey {
    id: KeyId,
    epoch: u64,
    key: Arc<DataKey>,
    row: Row,
}

/// What [`Keys::rewrap`] did with a key.
pub(in crate::encrypted) enum RewrapOutcome {
    /// The key was already wrapped under what the provider wraps with now.
    Current,
    /// Another process destroyed the key meanwhile.
    Destroyed,
    /// The key was wrapped again.
    Rewrapped,
}

/// The outcome of one attempt to change the keyring.
enum Attempt {
    Done,
    /// Another process changed the keyring meanwhile.
    Overtaken,
}

impl<B: Backend> Keys<B> {
    /// Writes the app's first data key. Returns `false` if another process has just written one.
    pub(super) async fn make_first(self: &Arc<Self>) -> Result<bool, KeyringError> {
        let new = self.new_key(Manifest::default().next_key_epoch()).await?;
        let manifest = Manifest::first(new.id, self.now());
        let key = (new.id, Arc::clone(&new.key));
        let put = self.put_new(new);
        let id = key.0;
        let write = self.write(manifest, key, Expect::Absent, vec![put]);
        self.reported(write, &[(ActKind::Key, id)]).await
    }

    /// Makes a new key the primary, and retires the old one.
    pub(in crate::encrypted) async fn rotate(
        self: &Arc<Self>,
        now: SystemTime,
    ) -> Result<KeyId, KeyringError> {
        for _ in 0..ATTEMPTS {
            let Loaded { manifest, version } = self.load().await?;
            let new = self.new_key(manifest.next_key_epoch()).await?;
            let (id, key) = (new.id, Arc::clone(&new.key));
            let next = manifest.with_distributed(id, now).promoted(id, now);
            let put = self.put_new(new);
            let expect = Expect::Version(version);
            let write = self.write(next, (id, key), expect, vec![put]);
            let acts = [(ActKind::Key, id), (ActKind::Promote, id)];
            if self.reported(write, &acts).await? {
                return Ok(id);
            }
        }
        Err(overtaken())
    }

    /// Makes a new key that every process unwraps, and that seals nothing yet.
    pub(in crate::encrypted) async fn add(
        self: &Arc<Self>,
        now: SystemTime,
    ) -> Result<KeyId, KeyringError> {
        for _ in 0..ATTEMPTS {
            let loaded = self.load().await?;
            let new = self.new_key(loaded.manifest.next_key_epoch()).await?;
            let id = new.id;
            let next = loaded.manifest.with_distributed(id, now);
            let put = self.put_new(new);
            let write = self.write_over(&loaded, next, vec![put]);
            if self.reported(write, &[(ActKind::Key, id)]).await? {
                return Ok(id);
            }
        }
        Err(overtaken())
    }

    /// Makes a key the primary. Returns `false` if this manifest is no longer the stored one.
    pub(in crate::encrypted) async fn promote(
        self: &Arc<Self>,
        loaded: &Loaded,
        key: ListedKey,
        now: SystemTime,
    ) -> Result<bool, KeyringError> {
        let unwrapped = self.fetch(key.id, key.epoch).await?;
        let next = loaded.manifest.promoted(key.id, now);
        let expect = Expect::Version(loaded.version);
        let write = self.write(next, (key.id, unwrapped), expect, Vec::new());
        self.reported(write, &[(ActKind::Promote, key.id)]).await
    }

    /// Deletes a key that is not the primary. Returns `false` if this manifest is no longer the
    /// stored one.
    pub(in crate::encrypted) async fn destroy(
        self: &Arc<Self>,
        loaded: &Loaded,
        id: KeyId,
    ) -> Result<bool, KeyringError> {
        let next = loaded.manifest.without(id);
        let slot = key_slot(id);
        let delete = Change::Delete { slot, only: None };
        let write = self.write_over(loaded, next, vec![delete]);
        self.reported(write, &[(ActKind::Destroy, id)]).await
    }

    /// Wraps a key again, under what the provider wraps with now. The data key stays the same.
    pub(in crate::encrypted) async fn rewrap(
        self: &Arc<Self>,
        id: KeyId,
    ) -> Result<RewrapOutcome, KeyringError> {
        for _ in 0..ATTEMPTS {
            let loaded = self.load().await?;
            let Some(listed) = loaded.key(id) else {
                return Ok(RewrapOutcome::Destroyed);
            };
            let row = self.read(key_slot(id)).await?;
            let row = row.ok_or(KeyringError::Unreadable)?;
            let stored = WrappedKey::of(&row)?;
            if (stored.id, stored.epoch) != (id, listed.epoch) {
                return Err(KeyringError::Unreadable);
            }
            let key = self.unwrap(&stored).await?;
            let context = self.context(id, listed.epoch);
            let wrapped = in_time(self.provider.wrap(&key, &context)).await?;
            let wrapper = wrapper(&wrapped);
            if wrapper.is_some() && wrapper == self::wrapper(stored.wrapped) {
                return Ok(RewrapOutcome::Current);
            }
            let wrapped = key_row(id, listed.epoch, &wrapped);
            self.prove(&key, &wrapped).await?;
            let put = Change::Put {
                slot: key_slot(id),
                row: wrapped,
                expect: Expect::Version(row.version),
            };
            let next = loaded.manifest.unchanged();
            let write = self.write_over(&loaded, next, vec![put]);
            if self.reported(write, &[(ActKind::Rewrap, id)]).await? {
                return Ok(RewrapOutcome::Rewrapped);
            }
        }
        Err(overtaken())
    }

    /// Changes the keyring. Returns whether it was changed; if so, the witness has recorded these
    /// acts.
    async fn reported(
        &self,
        write: impl Future<Output = Result<Attempt, KeyringError>> + Send,
        acts: &[(ActKind, KeyId)],
    ) -> Result<bool, KeyringError> {
        let begun = self.witness.begin(acts);
        let written = write.await;
        begun.end();
        let is_done = matches!(written?, Attempt::Done);
        for &(kind, id) in acts.iter().filter(|_| is_done) {
            self.report_change(kind, id).await?;
        }
        Ok(is_done)
    }

    /// Reports a change that was done, and waits for the witness.
    pub(in crate::encrypted) async fn report_change(
        &self,
        kind: ActKind,
        id: KeyId,
    ) -> Result<(), KeyringError> {
        let reported = self.witness.report_change(kind, id).await;
        reported.map_err(|error| backend::Error::Unavailable(error.into()).into())
    }

    /// Writes a manifest that has the same primary as the stored one.
    async fn write_over(
        self: &Arc<Self>,
        loaded: &Loaded,
        next: Manifest,
        changes: Vec<Change>,
    ) -> Result<Attempt, KeyringError> {
        let primary = next.primary().copied().ok_or(KeyringError::Unreadable)?;
        let key = self.fetch(primary.id, primary.epoch).await?;
        let expect = Expect::Version(loaded.version);
        self.write(next, (primary.id, key), expect, changes).await
    }

    /// Writes the manifest, sealed under this key, and the other changes of the keyring.
    async fn write(
        &self,
        manifest: Manifest,
        (id, key): (KeyId, Arc<DataKey>),
        expect: Expect,
        mut changes: Vec<Change>,
    ) -> Result<Attempt, KeyringError> {
        let then = Instant::now();
        changes.push(Change::Put {
            slot: manifest_slot(),
            row: manifest.seal(&self.app, id, &key),
            expect,
        });
        match commit(&*self.backend, &self.partition, &changes).await {
            Ok(()) => {}
            Err(backend::Error::Conflict) => return Ok(Attempt::Overtaken),
            Err(error) => return Err(error.into()),
        }
        match self.adopt(manifest, then) {
            // Another process has changed the keyring again.
            Err(KeyringError::RolledBack) => {}
            adopted => drop(adopted?),
        }
        Ok(Attempt::Done)
    }

    /// Returns the change that writes a new key, and keeps the key in memory.
    fn put_new(&self, new: NewKey) -> Change {
        self.ring.insert(new.id, new.epoch, new.key, Instant::now());
        Change::Put {
            slot: key_slot(new.id),
            row: new.row,
            expect: Expect::Absent,
        }
    }

    /// Makes a data key, and checks that the provider unwraps it.
    async fn new_key(&self, epoch: u64) -> Result<NewKey, KeyringError> {
        let id = KeyId::generate();
        let context = self.context(id, epoch);
        let generated = in_time(self.provider.generate(&context)).await;
        if generated.is_err() {
            self.witness.report(ActKind::Key, id, false);
        }
        let (made, wrapped) = generated?;
        let row = key_row(id, epoch, &wrapped);
        let key = Arc::new(self.prove(&made, &row).await?);
        Ok(NewKey {
            id,
            epoch,
            key,
            row,
        })
    }

    /// Checks that the provider unwraps this row to this key. A provider may allow to wrap, and
    /// refuse to unwrap. A primary key that nobody can unwrap would stop every process.
    async fn prove(&self, made: &DataKey, row: &Row) -> Result<DataKey, KeyringError> {
        let key = self.unwrap(&WrappedKey::of(row)?).await?;
        if bool::from(made.expose().ct_eq(key.expose())) {
            Ok(key)
        } else {
            Err(KeyringError::Mismatch)
        }
    }
}

/// Returns the error after [`ATTEMPTS`] attempts.
pub(in crate::encrypted) fn overtaken() -> KeyringError {
    let again = "other processes changed the keyring 3 times; try again".into();
    backend::Error::Unavailable(again).into()
}
