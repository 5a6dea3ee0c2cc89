//! Data keys and their ids.

use std::fmt;
use std::str::FromStr;

use ring::hkdf;
use thiserror::Error;
use zeroize::Zeroizing;

use super::derived::Openings;
use crate::random;

/// A data key's length in bytes.
pub(super) const DATA_KEY_LEN: usize = 32;

/// A data key. It seals records, and is stored only wrapped.
///
/// Its bytes are wiped when it is dropped. The keys that ring derives from them are not wiped.
pub struct DataKey(Box<KeyMaterial>);

/// One allocation, so that moving a data key leaves no copy behind.
struct KeyMaterial {
    bytes: Zeroizing<[u8; DATA_KEY_LEN]>,
    openings: Openings,
    pseudorandom_key: hkdf::Prk,
}

impl DataKey {
    /// Makes a data key from its bytes, for key providers.
    #[must_use]
    pub fn from_bytes(bytes: [u8; DATA_KEY_LEN]) -> Self {
        Self(Box::new(KeyMaterial {
            pseudorandom_key: pseudorandom_key(&bytes),
            bytes: Zeroizing::new(bytes),
            openings: Openings::default(),
        }))
    }

    /// Returns the key's bytes, for key providers.
    #[must_use]
    pub fn expose(&self) -> &[u8; DATA_KEY_LEN] {
        &self.0.bytes
    }

    /// Returns the HKDF key that the keys of each partition are derived from.
    pub(super) fn pseudorandom_key(&self) -> &hkdf::Prk {
        &self.0.pseudorandom_key
    }

    /// Returns the cache of keys that open the rows of recently read partitions.
    pub(super) fn openings(&self) -> &Openings {
        &self.0.openings
    }

    pub(crate) fn generate() -> Self {
        Self::from_bytes(random::bytes())
    }
}

redacted!(DataKey);

/// A data key's id: 16 random bytes. Not secret.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyId([u8; 16]);

impl KeyId {
    /// Makes an id from its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the id's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    pub(crate) fn generate() -> Self {
        Self(random::bytes())
    }

    /// Parses the form that `Display` writes.
    pub(crate) fn parse(hex: &str) -> Option<Self> {
        let id = Self(u128::from_str_radix(hex, 16).ok()?.to_be_bytes());
        // No other form is accepted. Rust also parses a sign, capitals and fewer digits.
        (id.to_string() == hex).then_some(id)
    }
}

/// Parses the form that `Display` writes: 32 lower-case hex digits.
impl FromStr for KeyId {
    type Err = KeyIdError;

    fn from_str(text: &str) -> Result<Self, KeyIdError> {
        Self::parse(text).ok_or(KeyIdError)
    }
}

/// A text is not the id of a data key.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the id of a data key has 32 lower-case hex digits")]
#[non_exhaustive]
pub struct KeyIdError;

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Derives the HKDF key of a data key. It is computed once for each data key.
fn pseudorandom_key(data_key: &[u8; DATA_KEY_LEN]) -> hkdf::Prk {
    hkdf::Salt::new(hkdf::HKDF_SHA256, EXTRACT_SALT).extract(data_key)
}

const EXTRACT_SALT: &[u8] = b"slack-installs envelope v1";
