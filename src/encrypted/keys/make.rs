//! Makes data keys.

use std::sync::Arc;
use std::time::SystemTime;

use subtle::ConstantTimeEq as _;
use tokio::time::Instant;

use super::key_rows::{WrappedKey, key_row, key_slot};
use super::{ATTEMPTS, Keys, Loaded, Manifest, in_time, manifest_slot};
use crate::backend::{self, Backend, Change, Expect, Row};
use crate::encrypted::KeyringError;
use crate::encrypted::commit::commit;
use crate::seal::{DataKey, KeyId};

/// A data key that is not stored yet. The provider has unwrapped it.
struct NewKey {
    id: KeyId,
    epoch: u64,
    key: Arc<DataKey>,
    row: Row,
}

impl<B: Backend> Keys<B> {
    /// Writes the app's first data key. Returns `false` if another process has just written one.
    pub(super) async fn make_first(&self) -> Result<bool, KeyringError> {
        let new = self.new_key(Manifest::default().next_key_epoch()).await?;
        let manifest = Manifest::first(new.id);
        match self.write(new, manifest, Expect::Absent).await {
            Ok(()) => Ok(true),
            Err(KeyringError::Backend(backend::Error::Conflict)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes a new key the primary, and retires the old one.
    pub(in crate::encrypted) async fn rotate(
        self: &Arc<Self>,
        now: SystemTime,
    ) -> Result<KeyId, KeyringError> {
        for _ in 0..ATTEMPTS {
            let Loaded { manifest, version } = self.load().await?;
            let new = self.new_key(manifest.next_key_epoch()).await?;
            let id = new.id;
            let next = manifest.with_primary(id, now);
            match self.write(new, next, Expect::Version(version)).await {
                Err(KeyringError::Backend(backend::Error::Conflict)) => {}
                outcome => return outcome.map(|()| id),
            }
        }
        let again = "other processes changed the keyring 3 times; try again".into();
        Err(backend::Error::Unavailable(again).into())
    }

    /// Writes a new key and the manifest that makes it the primary.
    async fn write(
        &self,
        new: NewKey,
        manifest: Manifest,
        expect: Expect,
    ) -> Result<(), KeyringError> {
        let then = Instant::now();
        let put = |slot, row, expect| Change::Put { slot, row, expect };
        let sealed = manifest.seal(&self.app, new.id, &new.key);
        let changes = [
            put(manifest_slot(), sealed, expect),
            put(key_slot(new.id), new.row, Expect::Absent),
        ];
        commit(&*self.backend, &self.partition, &changes).await?;
        self.ring.insert(new.id, new.epoch, new.key, then);
        match self.adopt(manifest, then) {
            // Another process has changed the keyring already.
            Err(KeyringError::RolledBack) => Ok(()),
            adopted => adopted.map(drop),
        }
    }

    /// Makes a data key, and checks that the provider unwraps it. A provider may allow one and not
    /// the other. A primary key that nobody can unwrap would stop every process.
    async fn new_key(&self, epoch: u64) -> Result<NewKey, KeyringError> {
        let id = KeyId::generate();
        let context = self.context(id, epoch);
        let (made, wrapped) = in_time(self.provider.generate(&context)).await?;
        let row = key_row(id, epoch, &wrapped);
        let key = self.unwrap(&WrappedKey::of(&row)?).await?;
        if !bool::from(made.expose().ct_eq(key.expose())) {
            return Err(KeyringError::Mismatch);
        }
        let key = Arc::new(key);
        Ok(NewKey {
            id,
            epoch,
            key,
            row,
        })
    }
}
