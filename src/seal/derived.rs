//! A cache of the derived keys that open the rows of partitions.
//!
//! Without the cache, key derivation is more than half of the cost of opening a row
//! (`docs/performance.md`). Each data key has its own cache, which is dropped with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ring::aead::LessSafeKey;

/// The length of a commitment to a key, in bytes.
pub(super) const COMMITMENT_LEN: usize = 32;

/// The key and the commitment that open ciphertexts of one data key, purpose, app and partition.
pub(super) struct Opening {
    pub(super) aead: LessSafeKey,
    pub(super) commitment: [u8; COMMITMENT_LEN],
}

/// An approximate LRU cache: keeps between half of its capacity and all of it.
#[derive(Default)]
pub(super) struct Openings(Mutex<Halves>);

/// The two halves of the cache. An entry that is found in the older half moves to the newer one.
/// When the newer half is full, the older one is dropped.
#[derive(Default)]
struct Halves {
    newer: HashMap<Box<[u8]>, Arc<Opening>>,
    older: HashMap<Box<[u8]>, Arc<Opening>>,
}

impl Openings {
    /// Returns the entry of this `info`. If it is not cached, derives and caches it.
    pub(super) fn get(&self, info: &[u8], derive: impl FnOnce() -> Opening) -> Arc<Opening> {
        if let Some(opening) = self.kept(info) {
            return opening;
        }
        // Derived outside the lock, so that callers of other partitions do not wait.
        let opening = Arc::new(derive());
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        halves.keep(info.into(), Arc::clone(&opening));
        opening
    }

    fn kept(&self, info: &[u8]) -> Option<Arc<Opening>> {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opening) = halves.newer.get(info) {
            return Some(Arc::clone(opening));
        }
        let (info, opening) = halves.older.remove_entry(info)?;
        halves.keep(info, Arc::clone(&opening));
        Some(opening)
    }
}

impl Halves {
    fn keep(&mut self, info: Box<[u8]>, opening: Arc<Opening>) {
        if self.newer.len() >= HALF {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(info, opening);
    }
}

/// The partitions of each half. Both halves together take about a megabyte.
const HALF: usize = 512;

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
    fn each_is_derived_once_while_it_is_used_and_no_more_are_kept_than_fit() {
        let openings = Openings::default();
        let derived = Cell::new(0);
        let get = |number: usize| {
            let opening = openings.get(&number.to_be_bytes(), || {
                derived.set(derived.get() + 1);
                opening(number)
            });
            assert_eq!(usize::from(opening.commitment[0]), number % 251);
        };
        for number in 0..HALF {
            get(number);
            get(number);
        }
        assert_eq!(derived.get(), HALF);
        // An entry that is used stays, even if many others are added.
        for number in HALF..5 * HALF {
            get(number);
            get(0);
            let halves = openings.0.lock().expect("no panic");
            assert!(halves.newer.len() <= HALF && halves.older.len() <= HALF);
        }
        assert_eq!(
            derived.get(),
            5 * HALF,
            "the entry in use was never derived again"
        );
        get(1);
        assert_eq!(derived.get(), 5 * HALF + 1, "the unused entry was dropped");
    }
}
