//! A cache of the derived keys that open the rows of partitions.
//!
//! Without the cache, key derivation is more than half of the cost of opening a row
//! (`docs/performance.md`). Each data key has its own cache, which is dropped with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::aead::LessSafeKey;

use crate::lru::Lru;

/// The length of a commitment to a key, in bytes.
pub(super) const COMMITMENT_LEN: usize = 32;

/// The key and the commitment that open ciphertexts of one data key, purpose, app and partition.
pub(super) struct Opening {
    pub(super) aead: LessSafeKey,
    pub(super) commitment: [u8; COMMITMENT_LEN],
}

/// The openings that were used last.
pub(super) struct Openings(Mutex<Lru<Box<[u8]>, Arc<Opening>>>);

impl Default for Openings {
    fn default() -> Self {
        Self(Mutex::new(Lru::new(CAPACITY)))
    }
}

impl Openings {
    /// Returns the entry of this `info`. If it is not cached, derives and caches it.
    pub(super) fn get(&self, info: &[u8], derive: impl FnOnce() -> Opening) -> Arc<Opening> {
        if let Some(opening) = self.lru().get(info) {
            return opening;
        }
        // Derived outside the lock, so that callers of other partitions do not wait.
        let opening = Arc::new(derive());
        self.lru().insert(info.into(), Arc::clone(&opening));
        opening
    }

    fn lru(&self) -> MutexGuard<'_, Lru<Box<[u8]>, Arc<Opening>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The largest number of partitions. They take about a megabyte.
const CAPACITY: usize = 1024;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use ring::aead::{AES_256_GCM, UnboundKey};

    use super::*;

    fn opening(number: usize) -> Opening {
        let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("32 bytes");
        Opening {
            aead: LessSafeKey::new(key),
            commitment: [u8::try_from(number % 251).expect("small"); COMMITMENT_LEN],
        }
    }

    #[test]
    fn an_opening_is_derived_once_while_it_is_used_and_again_after_it_was_not() {
        let openings = Openings::default();
        let derived = Cell::new(0);
        let get = |number: usize| {
            let opening = openings.get(&number.to_be_bytes(), || {
                derived.set(derived.get() + 1);
                opening(number)
            });
            assert_eq!(usize::from(opening.commitment[0]), number % 251);
        };
        for number in 1..2 * CAPACITY {
            get(number);
            get(0);
        }
        assert_eq!(derived.get(), 2 * CAPACITY);
        get(1);
        assert_eq!(derived.get(), 2 * CAPACITY + 1);
    }
}
