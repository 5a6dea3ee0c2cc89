//! Random pauses, so that processes do not act at the same time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A SplitMix64 generator. No secret depends on it.
#[derive(Debug)]
pub(super) struct Jitter(AtomicU64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Returns a random number from 0 to 1.
    pub(super) fn random(&self) -> f64 {
        let mut word = self.0.fetch_add(STEP, Ordering::Relaxed);
        word = word.wrapping_add(STEP);
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        f64::from(u32::try_from(word >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
    }

    /// Returns a random duration between 50 % and 150 % of this pause.
    pub(super) fn around(&self, pause: Duration) -> Duration {
        pause.mul_f64(0.5 + self.random())
    }
}

const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_drawn_from_the_whole_range_and_by_the_seed() {
        let draw = |seed| {
            let jitter = Jitter::new(seed);
            (0..1000).map(|_| jitter.random()).collect::<Vec<_>>()
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
