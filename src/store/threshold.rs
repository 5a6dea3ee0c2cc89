//! How long before its expiry a token is refreshed.

use std::time::Duration;

use thiserror::Error;

/// How long before its expiry a token is refreshed, give or take a quarter of it. The default is
/// two hours, as in Slack's SDKs.
///
/// A short threshold makes fewer refreshes, and leaves less time to repeat one that fails. A long
/// one outlasts a longer outage of Slack.
///
/// ```
/// use std::time::Duration;
/// use slack_installs::rotation::RefreshThreshold;
///
/// let hour = RefreshThreshold::new(Duration::from_secs(60 * 60))?;
/// assert!(RefreshThreshold::new(Duration::from_secs(60)).is_err());
/// # Ok::<(), slack_installs::rotation::ThresholdError>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct RefreshThreshold(Duration);

impl RefreshThreshold {
    /// Makes a threshold of 10 minutes to 4 hours.
    ///
    /// # Errors
    ///
    /// [`ThresholdError`] if it is outside these bounds.
    pub fn new(threshold: Duration) -> Result<Self, ThresholdError> {
        if threshold < SHORTEST {
            Err(ThresholdError::Short(threshold))
        } else if threshold > LONGEST {
            Err(ThresholdError::Long(threshold))
        } else {
            Ok(Self(threshold))
        }
    }

    /// Returns the threshold.
    #[must_use]
    pub fn as_duration(self) -> Duration {
        self.0
    }

    /// Returns how much sooner or later a token may be refreshed. This spreads the refreshes of
    /// tenants that installed at the same time.
    pub(crate) fn spread(self) -> Duration {
        self.0 / 4
    }

    /// Returns the longest time before its expiry at which a token may be refreshed.
    pub(crate) fn earliest(self) -> Duration {
        self.0 + self.spread()
    }
}

impl Default for RefreshThreshold {
    fn default() -> Self {
        Self(DEFAULT)
    }
}

/// Why a [`RefreshThreshold`] is refused.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ThresholdError {
    /// Callers wait for a new token from 5 minutes before the old one expires. A refresh ahead must
    /// begin before that.
    #[error(
        "the refresh threshold is {} s; it must be at least 10 minutes (600 s), because callers \
         wait for a new token from 5 minutes before the old one expires", .0.as_secs_f64()
    )]
    Short(Duration),
    /// Slack keeps two access tokens alive. Two refreshes within the 12 hours of one token would
    /// revoke a token that is in use.
    #[error(
        "the refresh threshold is {} s; it must be at most 4 hours (14400 s), because a token lives \
         for 12 hours and must not be replaced in the first half of its life", .0.as_secs_f64()
    )]
    Long(Duration),
}

/// Slack's SDKs use the same value (`minutes_before_expiration=120`).
const DEFAULT: Duration = Duration::from_secs(2 * 60 * 60);

/// The latest refresh is a quarter later than the threshold. It then still begins before callers
/// have to wait.
const SHORTEST: Duration = Duration::from_secs(10 * 60);

/// The earliest refresh is a quarter earlier than the threshold, and then still in the second half
/// of a token's 12 hours.
const LONGEST: Duration = Duration::from_secs(4 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_of_10_minutes_to_4_hours_and_the_error_says_so() {
        let seconds = Duration::from_secs;
        for good in [600, 3_600, 14_400] {
            let threshold = RefreshThreshold::new(seconds(good)).expect("within the bounds");
            assert_eq!(threshold.as_duration(), seconds(good));
        }
        assert_eq!(RefreshThreshold::default().as_duration(), seconds(7_200));
        for (bad, bound) in [(599, "10 minutes (600 s)"), (14_401, "4 hours (14400 s)")] {
            let error = RefreshThreshold::new(seconds(bad)).expect_err("out of bounds");
            let text = error.to_string();
            assert!(text.contains(&format!("{bad} s")), "{text}");
            assert!(text.contains(bound) && text.contains("because"), "{text}");
        }
        assert!(RefreshThreshold::new(Duration::MAX).is_err());
    }
}
