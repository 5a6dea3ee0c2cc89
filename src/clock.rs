//! The one place that reads the wall clock.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where "now" comes from: the system, or a test.
///
/// Decisions in this crate take the time as an argument; this is where their callers get it.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// A clock that reads this function, for tests that move time themselves.
    pub fn from_fn(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }
}

impl Default for Clock {
    /// The system's clock.
    fn default() -> Self {
        Self(Arc::new(SystemTime::now))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// Whole seconds since 1970; 0 for anything before.
pub(crate) fn to_epoch(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// The time that many seconds after 1970, at most the year 9999.
pub(crate) fn from_epoch(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.min(LATEST))
}

/// Whole milliseconds since 1970; 0 for anything before.
pub(crate) fn to_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The time that many milliseconds after 1970, at most the year 9999.
pub(crate) fn from_millis(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis.min(LATEST * 1000))
}

/// 9999-12-31T23:59:59Z in seconds since 1970: expressible on every platform and in every
/// database, so that a hostile `expires_in` cannot make the addition overflow.
const LATEST: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_time_is_counted_in_whole_units_since_1970() {
        let time = UNIX_EPOCH + Duration::from_micros(1_790_000_000_999_999);
        assert_eq!(to_epoch(time), 1_790_000_000);
        assert_eq!(to_millis(time), 1_790_000_000_999);
        assert_eq!(
            from_epoch(1_790_000_000),
            UNIX_EPOCH + Duration::from_secs(1_790_000_000)
        );
        assert_eq!(
            from_millis(1_790_000_000_999),
            UNIX_EPOCH + Duration::from_millis(1_790_000_000_999)
        );
    }

    #[test]
    fn a_time_before_1970_is_0() {
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!((to_epoch(before), to_millis(before)), (0, 0));
    }

    #[test]
    fn no_count_is_too_large_for_a_time_that_can_be_added_to() {
        let last = UNIX_EPOCH + Duration::from_secs(253_402_300_799);
        assert_eq!(from_epoch(253_402_300_798), last - Duration::from_secs(1));
        assert_eq!(from_epoch(253_402_300_800), last);
        assert_eq!(from_epoch(u64::MAX), last);
        assert_eq!(
            from_millis(253_402_300_798_000),
            last - Duration::from_secs(1)
        );
        assert_eq!(from_millis(253_402_300_800_000), last);
        assert_eq!(from_millis(u64::MAX), last);
        assert!(last.checked_add(Duration::from_secs(86_400)).is_some());
    }

    #[test]
    fn a_clock_and_its_clones_read_the_same_function_each_time() {
        let seconds = AtomicU64::new(7);
        let clock = Clock::from_fn(move || from_epoch(seconds.fetch_add(1, Ordering::SeqCst)));
        let same = clock.clone();
        assert_eq!(to_epoch(clock.now()), 7);
        assert_eq!(to_epoch(same.now()), 8);
        assert_eq!(to_epoch(clock.now()), 9);
    }
}
