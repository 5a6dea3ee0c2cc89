//! Envelope encryption: data keys seal records, and a key provider wraps data keys.
//!
//! ```text
//! KeyProvider (a master key here, or a KMS)     never leaves the provider
//!  └─ data key, 32 random bytes                 wrapped, a row of the keyring
//!      └─ one key per partition                 HKDF from the data key and the partition's name
//! ```
//!
//! Every ciphertext is bound to its context: the app, the partition, the slot, the kind of
//! record, the row's version, its lane and due time, and the row's metadata. If it is moved to
//! another place, or stored with changed metadata, it does not open. `docs/envelope.md` in the
//! repository describes the format. Another implementation recomputes the golden vectors there.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

mod derived;
mod envelope;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod key;
mod keyring;
mod local;
pub(crate) mod wrapped;

pub(crate) use envelope::{Context, MANIFEST, RECORD, open, seal};
pub use key::{DataKey, KeyId, KeyIdError};
pub(crate) use keyring::{Held, Keyring, Lookup};
pub use local::{LocalKeyProvider, MasterKey, MasterKeyError};

use async_trait::async_trait;

use crate::forward::forward;

/// Ciphertext, as a backend stores it.
///
/// Only this crate can make a `Sealed` from plaintext, by sealing it. There is no public
/// constructor from plaintext, so plaintext cannot reach a backend.
///
/// ```compile_fail
/// use slack_installs::backend::Sealed;
///
/// let sealed = Sealed(b"xoxb-plaintext".to_vec()); // the field is private
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct Sealed(Vec<u8>);

impl Sealed {
    /// Makes a `Sealed` from the bytes that a backend read.
    ///
    /// If this crate did not write the bytes, the value is empty and never opens. So plaintext that
    /// is passed here by mistake is dropped, not stored.
    #[must_use]
    pub fn from_stored(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        if envelope::is_envelope(&bytes) {
            Self(bytes)
        } else {
            Self(Vec::new())
        }
    }

    /// Returns the bytes to store.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// Wraps data keys under a key that never leaves the provider: a local master key, or a KMS.
///
/// # Contract
///
/// 1. `unwrap` returns the key that `wrap` was given, for the same context.
/// 2. `unwrap` fails for another context, and for a wrapped key that was changed in any byte.
///
/// # Consistency
///
/// No requirement, because a wrapped key never changes.
///
/// # Cancel safety
///
/// You can drop each method at any point.
///
/// # Errors
///
/// [`KeyError::Unavailable`], if the provider cannot be reached and the same call may succeed
/// later. [`KeyError::Refused`], if the provider rejects the call. [`KeyError::UnknownKey`] and
/// [`KeyError::Changed`], only if the provider cannot open this wrapped key for any caller.
#[async_trait]
pub trait KeyProvider: fmt::Debug + Send + Sync + 'static {
    /// Makes a data key, and returns it with its wrapped form.
    ///
    /// The default makes 32 random bytes in this process and wraps them. A KMS can do both in one
    /// call. It is called only where keys are made.
    async fn generate(&self, context: &KeyContext<'_>) -> Result<(DataKey, Vec<u8>), KeyError> {
        let key = DataKey::generate();
        let wrapped = self.wrap(&key, context).await?;
        Ok((key, wrapped))
    }

    /// Wraps a data key.
    async fn wrap(&self, key: &DataKey, context: &KeyContext<'_>) -> Result<Vec<u8>, KeyError>;

    /// Unwraps a data key.
    async fn unwrap(&self, wrapped: &[u8], context: &KeyContext<'_>) -> Result<DataKey, KeyError>;
}

forward!(KeyProvider for [Arc, Box] {
    fn generate(context: &KeyContext<'_>) -> Result<(DataKey, Vec<u8>), KeyError>;
    fn wrap(key: &DataKey, context: &KeyContext<'_>) -> Result<Vec<u8>, KeyError>;
    fn unwrap(wrapped: &[u8], context: &KeyContext<'_>) -> Result<DataKey, KeyError>;
});

/// The context that a wrapped data key is bound to. Not secret: a KMS shows it in its log.
#[derive(Clone, Copy, Debug)]
pub struct KeyContext<'a> {
    /// The app's client id.
    pub app: &'a str,
    /// The data key's id.
    pub key_id: KeyId,
    /// The data key's place in the order of the app's data keys. A newer key has a higher epoch. The
    /// provider binds it, so that nobody without the right to wrap can change a key's epoch.
    pub epoch: u64,
}

/// Why a key provider could not wrap or unwrap a data key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The wrapped key does not open. It was changed, or belongs to another app or id.
    #[error(
        "a wrapped data key does not unwrap: it was changed, or copied from another app or key id; \
         restore its row from a backup"
    )]
    Changed,
    /// The provider rejects the call, because a permission is missing or its key is disabled.
    #[error("the key provider rejected the call: {reason}")]
    Refused {
        /// The cause and the remedy, for an operator. Never key material.
        reason: String,
    },
    /// The provider cannot be reached.
    #[error("the key provider is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The provider does not have the key that wrapped this data key.
    #[error("the key provider does not have the key: {reason}")]
    UnknownKey {
        /// The key's name and the remedy, for an operator. Never key material.
        reason: String,
    },
}

impl KeyError {
    /// Returns the name of the error, for logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Refused { .. } => "refused",
            Self::Unavailable(_) => "unavailable",
            Self::UnknownKey { .. } => "unknown_key",
        }
    }
}

/// A ciphertext does not open. The error is the same for every reason.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("stored data does not open: it was changed, moved, or sealed under another key")]
pub(crate) struct Undecryptable;
