//! Conversion of times to and from whole seconds since 1970, as databases store them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Returns the whole seconds since 1970, rounded down; 0 for an earlier time.
pub(super) fn since_1970(time: SystemTime) -> u64 {
    to_seconds(time).max(0).cast_unsigned()
}

/// Returns the whole seconds since 1970, rounded down; negative for an earlier time.
pub(super) fn to_seconds(time: SystemTime) -> i64 {
    let whole = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => whole(since),
        Err(before) => {
            let before = before.duration();
            -whole(before) - i64::from(before.subsec_nanos() > 0)
        }
    }
}

/// Returns the time of these seconds since 1970; `None` if this platform cannot express it.
#[allow(dead_code, reason = "the memory backend stores times unchanged")]
pub(super) fn from_seconds(seconds: i64) -> Option<SystemTime> {
    let span = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        UNIX_EPOCH.checked_sub(span)
    } else {
        UNIX_EPOCH.checked_add(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rounded_down_on_either_side_of_1970_and_comes_back() {
        for (nanos, seconds) in [
            (1_500_000_000_i64, 1),
            (0, 0),
            (-1, -1),
            (-1_500_000_000, -2),
        ] {
            let span = Duration::from_nanos(nanos.unsigned_abs());
            let time = if nanos < 0 {
                UNIX_EPOCH - span
            } else {
                UNIX_EPOCH + span
            };
            assert_eq!(to_seconds(time), seconds);
            let whole = from_seconds(seconds).expect("a time near 1970");
            assert_eq!(to_seconds(whole), seconds);
            assert!(whole <= time);
        }
    }
}
