//! In-memory caches of one process that save calls to the database. They hold no tokens.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::lru::Lru;
use crate::store::ChainKey;

/// What this process has recently checked, recorded or asked Slack about. Forgets old entries,
/// because all of them can be found out again.
pub(super) struct RecentlySeen(Mutex<Inner>);

struct Inner {
    /// The time before which background work for callers skips a chain, and the time before which
    /// the worker does.
    checked: Lru<ChainKey, (Instant, Instant)>,
    /// The pair of a chain whose use was recorded, identified by its expiry.
    used: Lru<ChainKey, Option<SystemTime>>,
    /// Slack's verdict on the token of a generation, and when the verdict expires.
    verdicts: Lru<(ChainKey, u64), (Instant, bool)>,
}

impl Default for RecentlySeen {
    fn default() -> Self {
        Self(Mutex::new(Inner {
            checked: Lru::new(CAPACITY),
            used: Lru::new(CAPACITY),
            verdicts: Lru::new(CAPACITY),
        }))
    }
}

impl RecentlySeen {
    pub(super) fn was_checked(&self, key: &ChainKey) -> bool {
        let checked = self.inner().checked.get(key);
        checked.is_some_and(|(until, _)| Instant::now() < until)
    }

    pub(super) fn worker_skips(&self, key: &ChainKey) -> bool {
        let checked = self.inner().checked.get(key);
        checked.is_some_and(|(_, until)| Instant::now() < until)
    }

    /// Makes background work skip a chain for these times from now on: the work for callers, and
    /// the worker.
    pub(super) fn note_checked(&self, key: &ChainKey, pause: Duration, worker_pause: Duration) {
        let now = Instant::now();
        let until = (now + pause, now + worker_pause);
        self.inner().checked.insert(key.clone(), until);
    }

    /// Returns whether this process sees a pair used for the first time, and remembers it. The pair
    /// is identified by its expiry.
    pub(super) fn is_first_use(&self, key: &ChainKey, pair: Option<SystemTime>) -> bool {
        let mut inner = self.inner();
        if inner.used.get(key) == Some(pair) {
            return false;
        }
        inner.used.insert(key.clone(), pair);
        true
    }

    pub(super) fn verdict(&self, key: &ChainKey, generation: u64) -> Option<bool> {
        let (until, is_alive) = self.inner().verdicts.get(&(key.clone(), generation))?;
        (Instant::now() < until).then_some(is_alive)
    }

    pub(super) fn note_verdict(
        &self,
        key: &ChainKey,
        generation: u64,
        is_alive: bool,
        until: Instant,
    ) {
        let verdict = (until, is_alive);
        self.inner()
            .verdicts
            .insert((key.clone(), generation), verdict);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entries of one cache: about 20 MB.
const CAPACITY: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(team: &str) -> ChainKey {
        let team = crate::tenant::TeamId::new(team).expect("the id is valid");
        ChainKey {
            credential: crate::store::Credential::Bot,
            tenant: crate::tenant::InstallationKey::workspace(team),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_noted_until_a_time_ends_at_that_time() {
        let recent = RecentlySeen::default();
        let (one, other) = (key("T0ALPHA0001"), key("T0BRAVO0002"));
        let until = Instant::now() + Duration::from_secs(30);
        assert!(!recent.was_checked(&one));
        recent.note_checked(&one, Duration::from_secs(30), Duration::from_secs(10));
        for (generation, is_alive) in [(3, true), (4, false)] {
            assert_eq!(recent.verdict(&one, generation), None);
            recent.note_verdict(&one, generation, is_alive, until);
        }
        let moment = Duration::from_millis(1);
        tokio::time::advance(Duration::from_secs(10) - moment).await;
        assert!(recent.worker_skips(&one) && !recent.worker_skips(&other));
        tokio::time::advance(moment).await;
        assert!(!recent.worker_skips(&one));
        tokio::time::advance(Duration::from_secs(20) - moment).await;
        assert!(recent.was_checked(&one) && !recent.was_checked(&other));
        assert_eq!(recent.verdict(&one, 3), Some(true));
        assert_eq!(recent.verdict(&one, 4), Some(false));
        assert_eq!(recent.verdict(&one, 5), None);
        assert_eq!(recent.verdict(&other, 3), None);
        tokio::time::advance(moment).await;
        assert!(!recent.was_checked(&one));
        assert_eq!(
            (recent.verdict(&one, 3), recent.verdict(&one, 4)),
            (None, None)
        );
    }

    #[test]
    fn the_first_use_of_each_pair_is_noted_once() {
        let recent = RecentlySeen::default();
        let ends = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        for team in ["T0ALPHA0001", "T0BRAVO0002"] {
            for pair in [ends(1), ends(2), ends(1), None] {
                assert!(recent.is_first_use(&key(team), pair));
                assert!(!recent.is_first_use(&key(team), pair));
            }
        }
    }
}
