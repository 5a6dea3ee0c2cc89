//! What one process remembers, to spare the database. Never a token.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::time::Instant;

use crate::store::ChainKey;

/// Forgets what was not needed for long; all of it can be found out anew.
pub(super) struct Memo(Mutex<Inner>);

struct Inner {
    /// Chains that need no look from the background before then.
    quiet: Recent<ChainKey, Instant>,
    random: u64,
    /// Which pair of a chain was noted as used.
    used: Recent<ChainKey, Option<SystemTime>>,
    /// Until when Slack's word holds that this generation's token is alive, or is not.
    verdicts: Recent<(ChainKey, u64), (Instant, bool)>,
}

impl Memo {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(Inner {
            quiet: Recent::new(MOST),
            random: seed,
            used: Recent::new(MOST),
            verdicts: Recent::new(MOST),
        }))
    }

    pub(super) fn is_quiet(&self, key: &ChainKey) -> bool {
        let quiet_until = self.inner().quiet.get(key);
        quiet_until.is_some_and(|until| Instant::now() < until)
    }

    pub(super) fn keep_quiet(&self, key: &ChainKey, until: Instant) {
        let mut inner = self.inner();
        inner.quiet.insert(key.clone(), until);
    }

    /// Whether this is the first use of this pair that this process sees.
    pub(super) fn is_first_use(&self, key: &ChainKey, pair: Option<SystemTime>) -> bool {
        let mut inner = self.inner();
        if inner.used.get(key) == Some(pair) {
            return false;
        }
        inner.used.insert(key.clone(), pair);
        true
    }

    pub(super) fn verdict(&self, key: &ChainKey, generation: u64) -> Option<bool> {
        let verdict = self.inner().verdicts.get(&(key.clone(), generation));
        verdict
            .filter(|(until, _)| Instant::now() < *until)
            .map(|(_, is_alive)| is_alive)
    }

    pub(super) fn judge(&self, key: &ChainKey, generation: u64, is_alive: bool, until: Instant) {
        let mut inner = self.inner();
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

/// What was noted or looked at lately: between half of the most and the most.
struct Recent<K, V> {
    half: usize,
    new: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V: Copy> Recent<K, V> {
    fn new(most: usize) -> Self {
        Self {
            half: most / 2,
            new: HashMap::new(),
            old: HashMap::new(),
        }
    }

    fn get(&mut self, key: &K) -> Option<V> {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.insert(key, value);
        }
        self.new.get(key).copied()
    }

    fn insert(&mut self, key: K, value: V) {
        if self.new.len() >= self.half {
            self.old = std::mem::take(&mut self.new);
        }
        self.old.remove(&key);
        self.new.insert(key, value);
    }
}

/// About 20 MB.
const MOST: usize = 100_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_looked_at_again_and_again_is_not_forgotten_and_the_rest_is() {
        let mut recent = Recent::new(10);
        recent.insert(0, 'a');
        for other in 1..100 {
            recent.insert(other, 'b');
            assert_eq!(recent.get(&0), Some('a'), "after {other} others");
            assert!(recent.new.len() + recent.old.len() <= 10);
        }
        assert_eq!(recent.get(&1), None);
    }

    #[test]
    fn of_two_values_of_a_key_the_later_is_found() {
        let mut recent = Recent::new(4);
        for value in 0..10 {
            recent.insert('a', value);
            recent.insert(char::from(b'b' + value), value);
            assert_eq!(recent.get(&'a'), Some(value));
        }
    }

    fn key(team: &str) -> ChainKey {
        let team = crate::tenant::TeamId::new(team).expect("an id");
        ChainKey {
            credential: crate::store::Credential::Bot,
            tenant: crate::tenant::InstallationKey::workspace(team),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_noted_until_a_time_ends_at_that_time() {
        let memo = Memo::new(1);
        let (one, other) = (key("T0ALPHA0001"), key("T0BRAVO0002"));
        let until = Instant::now() + Duration::from_secs(30);
        assert!(!memo.is_quiet(&one));
        memo.keep_quiet(&one, until);
        for (generation, is_alive) in [(3, true), (4, false)] {
            assert_eq!(memo.verdict(&one, generation), None);
            memo.judge(&one, generation, is_alive, until);
        }
        let moment = Duration::from_millis(1);
        tokio::time::advance(Duration::from_secs(30) - moment).await;
        assert!(memo.is_quiet(&one) && !memo.is_quiet(&other));
        assert_eq!(memo.verdict(&one, 3), Some(true));
        assert_eq!(memo.verdict(&one, 4), Some(false));
        assert_eq!(memo.verdict(&one, 5), None);
        assert_eq!(memo.verdict(&other, 3), None);
        tokio::time::advance(moment).await;
        assert!(!memo.is_quiet(&one));
        assert_eq!((memo.verdict(&one, 3), memo.verdict(&one, 4)), (None, None));
    }

    #[test]
    fn the_first_use_of_each_pair_is_noted_once() {
        let memo = Memo::new(1);
        let ends = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        for team in ["T0ALPHA0001", "T0BRAVO0002"] {
            for pair in [ends(1), ends(2), ends(1), None] {
                assert!(memo.is_first_use(&key(team), pair));
                assert!(!memo.is_first_use(&key(team), pair));
            }
        }
    }

    #[test]
    fn pauses_are_drawn_from_the_whole_range_and_by_the_seed() {
        let draw = |seed| {
            let memo = Memo::new(seed);
            (0..1000).map(|_| memo.random()).collect::<Vec<_>>()
        };
        let drawn = draw(7);
        assert!(drawn.iter().all(|it| (0.0..=1.0).contains(it)));
        for tenth in 0..10 {
            let from = f64::from(tenth) / 10.0;
            let within = drawn.iter().filter(|it| (from..from + 0.1).contains(*it));
            assert!((50..200).contains(&within.count()), "tenth {tenth}");
        }
        assert_eq!(drawn, draw(7));
        assert_ne!(drawn, draw(8));
    }
}
