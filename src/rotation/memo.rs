//! What one process remembers, to spare the database. Never a token.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::time::Instant;

use crate::store::ChainKey;

/// Forgets everything when it grows too large; all of it is found out anew.
pub(super) struct Memo(Mutex<Inner>);

struct Inner {
    /// Chains that need no look from the background before then.
    quiet: HashMap<ChainKey, Instant>,
    random: u64,
    /// Which pair of a chain was noted as used.
    used: HashMap<ChainKey, Option<SystemTime>>,
    /// Until when Slack's word holds that this generation's token is alive, or is not.
    verdicts: HashMap<(ChainKey, u64), (Instant, bool)>,
}

impl Memo {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(Inner {
            quiet: HashMap::new(),
            random: seed,
            used: HashMap::new(),
            verdicts: HashMap::new(),
        }))
    }

    pub(super) fn is_quiet(&self, key: &ChainKey) -> bool {
        let quiet_until = self.inner().quiet.get(key).copied();
        quiet_until.is_some_and(|until| Instant::now() < until)
    }

    pub(super) fn keep_quiet(&self, key: &ChainKey, until: Instant) {
        let mut inner = self.inner();
        bound(&mut inner.quiet);
        inner.quiet.insert(key.clone(), until);
    }

    /// Whether this is the first use of this pair that this process sees.
    pub(super) fn is_first_use(&self, key: &ChainKey, pair: Option<SystemTime>) -> bool {
        let mut inner = self.inner();
        if inner.used.get(key) == Some(&pair) {
            return false;
        }
        bound(&mut inner.used);
        inner.used.insert(key.clone(), pair);
        true
    }

    pub(super) fn verdict(&self, key: &ChainKey, generation: u64) -> Option<bool> {
        let verdict = self
            .inner()
            .verdicts
            .get(&(key.clone(), generation))
            .copied();
        verdict
            .filter(|(until, _)| Instant::now() < *until)
            .map(|(_, is_alive)| is_alive)
    }

    pub(super) fn judge(&self, key: &ChainKey, generation: u64, is_alive: bool, until: Instant) {
        let mut inner = self.inner();
        bound(&mut inner.verdicts);
        inner
            .verdicts
            .insert((key.clone(), generation), (until, is_alive));
    }

    /// 0 to 1, for pauses: SplitMix64, which nothing secret depends on.
    pub(super) fn random(&self) -> f64 {
        let mut inner = self.inner();
        inner.random = inner.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = inner.random;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        f64::from(u32::try_from(word >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memo")
    }
}

fn bound<K, V>(map: &mut HashMap<K, V>) {
    if map.len() >= MOST {
        map.clear();
    }
}

/// About 20 MB.
const MOST: usize = 100_000;
