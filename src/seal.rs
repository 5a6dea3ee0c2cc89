//! Envelope encryption: data keys seal records, a key provider wraps data keys.
//!
//! ```text
//! KeyProvider (a master key here, or a KMS)     never leaves the provider
//!  └─ data key, 32 random bytes                 wrapped, a row of the keyring
//!      └─ one key per partition                 HKDF from the data key and the partition's name
//! ```
//!
//! Every ciphertext is bound to its context: the app, the partition, the slot, the kind of
//! record, the row's version, its lane and due time, and the row's metadata. Moved to any other place,
//! or put beside changed metadata, it does not open. The format is in `docs/envelope.md` of the
//! repository; golden vectors are recomputed there by another implementation.

use std::fmt;

use thiserror::Error;

mod derived;
mod envelope;
mod key;
mod keyring;
mod local;

pub(crate) use envelope::{Context, RECORD, open, seal};
pub use key::{DataKey, KeyId};
pub(crate) use keyring::{Keyring, Lookup};
pub use local::{LocalKeyProvider, MasterKey, MasterKeyError};

use async_trait::async_trait;

/// Ciphertext, as a backend stores it.
///
/// The one way to make a `Sealed` of something readable is to seal it, inside this crate: there
/// is no public constructor from plaintext, so plaintext cannot reach a backend.
///
/// ```compile_fail
/// use slack_installs::backend::Sealed;
///
/// let sealed = Sealed(b"xoxb-plaintext".to_vec()); // the field is private
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct Sealed(Vec<u8>);

impl Sealed {
    /// Ciphertext as a backend read it.
    ///
    /// Bytes that this crate did not write give an empty value, which never opens: plaintext
    /// that was passed here by mistake is dropped, not stored.
    #[must_use]
    pub fn from_stored(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        if envelope::is_envelope(&bytes) {
            Self(bytes)
        } else {
            Self(Vec::new())
        }
    }

    /// The bytes to store.
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

/// Wraps data keys under a key that never leaves it: a master key in this process, or a KMS.
///
/// # Contract
///
/// 1. `unwrap` gives back the key that `wrap` was given, for the same context.
/// 2. `unwrap` fails for another context, and for a wrapped key that was changed in any byte.
///
/// # Consistency
///
/// None is needed: a wrapped key never changes.
///
/// # Cancel safety
///
/// Both methods may be dropped at any point.
///
/// # Errors
///
/// [`KeyError::Unavailable`] if the provider cannot be reached and the same call may succeed later;
/// [`KeyError::Refused`] if it will not do it; [`KeyError::UnknownKey`] and [`KeyError::Changed`]
/// only if it cannot open this wrapped key, whoever asks.
#[async_trait]
pub trait KeyProvider: fmt::Debug + Send + Sync + 'static {
    /// Wraps a data key.
    async fn wrap(&self, key: &DataKey, context: &KeyContext<'_>) -> Result<Vec<u8>, KeyError>;

    /// Unwraps a data key.
    async fn unwrap(&self, wrapped: &[u8], context: &KeyContext<'_>) -> Result<DataKey, KeyError>;
}

/// What a wrapped data key is bound to. Not secret; a KMS shows it in its log.
#[derive(Clone, Copy, Debug)]
pub struct KeyContext<'a> {
    /// The app's client id.
    pub app: &'a str,
    /// The data key's id.
    pub key_id: KeyId,
}

/// Why a key provider could not do it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The wrapped key does not open: it was changed, or is for another app or id.
    #[error("a wrapped data key in the database was changed or moved")]
    Changed,
    /// It will not, for want of a permission or because its key is disabled.
    #[error("the key provider refused: {reason}")]
    Refused {
        /// What to do about it, for an operator. Never key material.
        reason: String,
    },
    /// It cannot be reached now.
    #[error("the key provider is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The wrapped key names a key that the provider does not have.
    #[error("the key provider does not have the key: {reason}")]
    UnknownKey {
        /// Which it is and what to do, for an operator. Never key material.
        reason: String,
    },
}

/// The one answer to any ciphertext that does not open, whatever the reason.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("stored data does not open: it was changed, moved, or sealed under another key")]
pub(crate) struct Undecryptable;
