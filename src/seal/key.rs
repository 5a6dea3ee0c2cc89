//! A data key, and its name.

use std::fmt;

use ring::hkdf;
use zeroize::Zeroizing;

use super::derived::Openings;
use crate::random;

/// A data key's length in bytes.
pub(super) const DATA_KEY_LEN: usize = 32;

/// A data key: seals records, and is itself stored only wrapped. Its bytes are wiped when it is
/// dropped; what ring derives from them is not.
pub struct DataKey(Box<KeyMaterial>);

/// In one allocation, so that a data key that moves leaves no copy behind.
struct KeyMaterial {
    bytes: Zeroizing<[u8; DATA_KEY_LEN]>,
    openings: Openings,
    pseudorandom_key: hkdf::Prk,
}

impl DataKey {
    /// A data key from its bytes, for key providers.
    #[must_use]
    pub fn from_bytes(bytes: [u8; DATA_KEY_LEN]) -> Self {
        Self(Box::new(KeyMaterial {
            pseudorandom_key: pseudorandom_key(&bytes),
            bytes: Zeroizing::new(bytes),
            openings: Openings::default(),
        }))
    }

    /// The key's bytes, for key providers.
    #[must_use]
    pub fn expose(&self) -> &[u8; DATA_KEY_LEN] {
        &self.0.bytes
    }

    /// What the keys of each partition are derived from.
    pub(super) fn pseudorandom_key(&self) -> &hkdf::Prk {
        &self.0.pseudorandom_key
    }

    /// What opens the rows of the partitions that were read lately.
    pub(super) fn openings(&self) -> &Openings {
        &self.0.openings
    }

    pub(crate) fn generate() -> Self {
        Self::from_bytes(random::bytes())
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey([redacted])")
    }
}

/// A data key's name: 16 random bytes, not secret.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct KeyId([u8; 16]);

impl KeyId {
    /// An id from its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    pub(crate) fn generate() -> Self {
        Self(random::bytes())
    }

    /// Reads the form that `Display` writes.
    pub(crate) fn parse(hex: &str) -> Option<Self> {
        let id = Self(u128::from_str_radix(hex, 16).ok()?.to_be_bytes());
        // And no other form: a sign, capitals and fewer digits are numbers to Rust as well.
        (id.to_string() == hex).then_some(id)
    }
}

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

/// What the keys of each partition are derived from. Computed once for each data key.
fn pseudorandom_key(data_key: &[u8; DATA_KEY_LEN]) -> hkdf::Prk {
    hkdf::Salt::new(hkdf::HKDF_SHA256, EXTRACT_SALT).extract(data_key)
}

const EXTRACT_SALT: &[u8] = b"slack-installs envelope v1";
