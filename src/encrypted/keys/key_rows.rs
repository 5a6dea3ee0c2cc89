//! The rows of wrapped data keys: the slot `key/<id>`, from when the key is made until it is
//! destroyed.

use serde::{Deserialize, Serialize};

use crate::backend::{Metadata, Row, Slot, Version};
use crate::encrypted::KeyringError;
use crate::encrypted::names::slot;
use crate::encrypted::record;
use crate::seal::{KeyId, Sealed};

/// The metadata of a data key's row. It is not secret, and the provider binds it.
#[derive(Deserialize, Serialize)]
struct KeyFacts {
    key: String,
    epoch: u64,
}

/// A wrapped data key.
pub(super) struct WrappedKey<'a> {
    pub(super) id: KeyId,
    pub(super) epoch: u64,
    pub(super) wrapped: &'a [u8],
}

impl<'a> WrappedKey<'a> {
    pub(super) fn of(row: &'a Row) -> Result<Self, KeyringError> {
        let facts = record::facts(row.metadata.as_str(), DATA_KEY);
        let KeyFacts { key, epoch } = facts.ok_or(KeyringError::Unreadable)?;
        let wrapped = row.sealed.wrapped_key();
        Ok(Self {
            id: KeyId::parse(&key).ok_or(KeyringError::Unreadable)?,
            epoch,
            wrapped: wrapped.map_err(|_| KeyringError::Unreadable)?,
        })
    }
}

/// Makes the row of a wrapped data key.
pub(super) fn key_row(id: KeyId, epoch: u64, wrapped: &[u8]) -> Row {
    let key = id.to_string();
    Row {
        version: Version::mint(),
        metadata: Metadata::new(record::metadata(DATA_KEY, &KeyFacts { key, epoch })),
        sealed: Sealed::from_wrapped_key(wrapped),
        due: None,
    }
}

/// The slot of this key's row.
pub(super) fn key_slot(id: KeyId) -> Slot {
    slot(&format!("{PREFIX}{id}"))
}

/// Returns the id of the key whose row has this slot; `None` for another slot.
pub(super) fn key_of(slot: &Slot) -> Option<KeyId> {
    KeyId::parse(slot.as_str().strip_prefix(PREFIX)?)
}

const PREFIX: &str = "key/";

/// The kind of a data key's row.
const DATA_KEY: &str = "data_key";
