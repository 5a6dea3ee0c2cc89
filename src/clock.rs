//! The clock. Only this file reads the system time.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The source of the current time: the system, or a test.
///
/// Decisions in this crate take the time as an argument. Their callers read it from a clock.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// Makes a clock that calls this function, for tests that control the time.
    pub fn from_fn(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Returns the current time.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }
}

impl Default for Clock {
    /// Makes a clock that reads the system time.
    fn default() -> Self {
        Self(Arc::new(SystemTime::now))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// Returns the whole seconds since 1970; 0 for an earlier time.
pub(crate) fn to_epoch(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// Returns the time this many seconds after 1970, at most the end of the year 9999.
pub(crate) fn from_epoch(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.min(LATEST))
}

/// Returns the whole milliseconds since 1970; 0 for an earlier time.
pub(crate) fn to_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the time this many milliseconds after 1970, at most the end of the year 9999.
pub(crate) fn from_millis(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis.min(LATEST * 1000))
}

/// 9999-12-31T23:59:59Z in seconds since 1970. Every platform and database can represent it, so a
/// hostile `expires_in` cannot overflow an addition.
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
