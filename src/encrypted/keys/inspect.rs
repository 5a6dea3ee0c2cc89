//! Checks the rows of a keyring, for a copy and for [`verify`](crate::EncryptedStore).

use std::sync::Arc;

use super::key_rows::{WrappedKey, key_of, key_slot};
use super::{Keys, copying, manifest_slot};
use crate::backend::{self, Backend, Key, Row, Slot};
use crate::encrypted::KeyringError;

impl<B: Backend> Keys<B> {
    /// Returns the row of the primary key. It identifies this store in another database.
    pub(in crate::encrypted) async fn primary_row(self: &Arc<Self>) -> Result<Row, KeyringError> {
        let manifest = self.load().await?.manifest;
        let primary = manifest.primary().ok_or(KeyringError::Unreadable)?;
        let row = self.read(key_slot(primary.id)).await?;
        row.ok_or(KeyringError::Unreadable)
    }

    /// Returns whether this store's keyring has the same wrapped key as a row of another keyring.
    pub(in crate::encrypted) async fn has(&self, other: &Row) -> Result<bool, backend::Error> {
        let Ok(WrappedKey { id, .. }) = WrappedKey::of(other) else {
            return Ok(false);
        };
        let rows = self.backend.read(&self.partition, &[key_slot(id)]).await?;
        // The note of a copy has the same wrapped key, in a row with another version.
        let mut rows = rows.iter().flatten();
        Ok(rows.any(|row| row.sealed == other.sealed && row.metadata == other.metadata))
    }

    /// Returns whether the manifest in another database is of a key that this store has.
    pub(in crate::encrypted) async fn has_sealed<T: Backend + ?Sized>(
        &self,
        manifest: &Row,
        database: &T,
    ) -> Result<bool, backend::Error> {
        let Ok(id) = manifest.sealed.key_id() else {
            return Ok(false);
        };
        let rows = database.read(&self.partition, &[key_slot(id)]).await?;
        match rows.into_iter().next().flatten() {
            Some(row) => self.has(&row).await,
            None => Ok(false),
        }
    }

    /// Returns whether another database has every row of this keyring, byte for byte.
    pub(in crate::encrypted) async fn is_copied_to<T: Backend + ?Sized>(
        self: &Arc<Self>,
        target: &T,
    ) -> Result<bool, KeyringError> {
        let manifest = self.load().await?.manifest;
        let keys = manifest.keys().iter().map(|key| key_slot(key.id));
        let slots: Vec<Slot> = keys.chain([manifest_slot()]).collect();
        for slots in slots.chunks(SLOTS_AT_ONCE) {
            let ours = self.backend.read(&self.partition, slots).await?;
            let theirs = target.read(&self.partition, slots).await?;
            if ours != theirs || ours.iter().any(Option::is_none) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the rows that the keyring lacks.
    pub(in crate::encrypted) async fn missing(
        self: &Arc<Self>,
    ) -> Result<Vec<String>, KeyringError> {
        // A keyring without a manifest, or with an unusable one, is judged by the newest known one.
        if let Err(error) = self.load().await
            && error.is_transient()
        {
            return Err(error);
        }
        let newest = self.newest();
        let keys = newest.keys().iter().map(|key| key_slot(key.id));
        let mut missing = Vec::new();
        for slot in keys.chain([manifest_slot()]) {
            if self.read(slot.clone()).await?.is_none() {
                missing.push(Key::of(&self.partition, &slot).to_string());
            }
        }
        Ok(missing)
    }

    /// Checks one row of the keyring.
    pub(in crate::encrypted) async fn check(
        self: &Arc<Self>,
        key: &Key,
        row: &Row,
    ) -> Result<(), KeyringError> {
        if key.slot == copying() {
            return Ok(());
        }
        if key.slot == manifest_slot() {
            return self.load().await.map(drop);
        }
        let id = key_of(&key.slot).ok_or(KeyringError::Unreadable)?;
        let newest = self.newest();
        let listed = newest.key(id).ok_or(KeyringError::RolledBack)?;
        let wrapped = WrappedKey::of(row)?;
        if (wrapped.id, wrapped.epoch) != (listed.id, listed.epoch) {
            return Err(KeyringError::Unreadable);
        }
        self.unwrap(&wrapped).await.map(drop)
    }
}

/// The slots of one read. A backend accepts 90.
const SLOTS_AT_ONCE: usize = 50;
