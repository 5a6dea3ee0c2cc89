//! A lease that this process holds, and its release after a refresh that brought no pair.

use std::sync::Arc;
use std::time::Duration;

use super::engine::Engine;
use super::error::Error;
use super::protocol::{self, LEASE, LONG_OUTAGE, Released, Ticket};
use super::step::Step;
use crate::error_chain::error_chain;
use crate::store::ChainKey;
use crate::tenant::AppId;

/// The lease of one chain, and the ticket of the refresh that holds it.
#[derive(Clone)]
pub(super) struct HeldLease {
    pub(super) engine: Arc<Engine>,
    pub(super) key: ChainKey,
    pub(super) ticket: Ticket,
    /// The id of the app to which the chain belongs.
    pub(super) app_id: AppId,
    /// Whether the pair is bought ahead, without a caller that asked for it.
    pub(super) is_ahead: bool,
}

impl HeldLease {
    /// Releases the lease, and returns an error that says when the refresh can be tried again:
    /// after `after`, or else after the backoff, which is short while the outcome of a call is
    /// unknown. `fruitless` is the number of recorded calls that certainly issued no pair. If
    /// `may_come`, a response to one of them may still come.
    ///
    /// If another pair was saved in the meantime, the refresh did not fail: the chain must be read
    /// again.
    ///
    /// If the database does not respond for a long time, the lease is not released but lapses.
    pub(super) async fn give_back(
        &self,
        fruitless: u32,
        may_come: bool,
        after: Option<Duration>,
        error: &str,
    ) -> Result<Step, Error> {
        let now = self.engine.clock.now();
        let share = 0.5 + self.engine.jitter.random();
        let mut retry_at = now;
        let released = self.engine.patient_step(&self.key, |chain| {
            if self.ticket.is_overtaken(chain) {
                return (protocol::step_back(chain, &self.ticket), true);
            }
            let (failures, calls) = chain.map_or((0, 0), |it| (it.failures, it.attempts));
            let is_unknown = calls > fruitless;
            retry_at = now + after.unwrap_or_else(|| pause(failures, is_unknown, share));
            let released = Released {
                fruitless,
                may_come,
                retry_at,
                error: error.into(),
            };
            (protocol::release(chain, &self.ticket, &released), false)
        });
        match released.await {
            Ok((_, true)) => return Ok(Step::Again),
            Ok((_, false)) => {}
            Err(error) => {
                tracing::warn!(
                    tenant = %self.key.tenant, whose = %self.key.credential, error = error_chain(&error),
                    "a lease could not be released; it lapses within 15 s"
                );
                retry_at = retry_at.max(now + LEASE);
            }
        }
        Err(Error::try_again(retry_at, Some(error)))
    }
}

/// Returns the pause after this many failures. `share` is between 0.5 and 1.5.
///
/// If the outcome of a call is unknown, Slack may have carried it out. The pause then ends while
/// Slack still accepts the refresh token again.
fn pause(failures: u32, is_unknown: bool, share: f64) -> Duration {
    let pause = backoff(failures).mul_f64(share);
    if is_unknown && failures < LONG_OUTAGE {
        pause.min(IN_GRACE.mul_f64(0.7 + 0.2 * share))
    } else {
        pause
    }
}

/// The longest pause after a call of unknown outcome. With the two calls before it (12 s) and the
/// time between two looks of a worker (3 s), the next call is made within 25 s.
const IN_GRACE: Duration = Duration::from_secs(10);

/// Returns the backoff: 1 s, doubled by each failure, up to 60 s.
fn backoff(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(6)).min(Duration::from_secs(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_again_after_a_second_and_after_a_minute_at_most() {
        let waits = [0, 1, 2, 3, 4, 5, 6, 7, 40, u32::MAX].map(|it| backoff(it).as_secs());
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
    }

    #[test]
    fn the_pause_after_a_call_of_unknown_outcome_is_never_longer_than_ten_seconds() {
        for failures in 0..LONG_OUTAGE {
            for share in [0.5, 1.0, 1.5] {
                let known = pause(failures, false, share);
                assert_eq!(known, backoff(failures).mul_f64(share), "{failures}");
                let unknown = pause(failures, true, share);
                assert!(unknown <= IN_GRACE && unknown <= known, "{failures}");
            }
        }
        // A longer outage is waited out.
        assert_eq!(pause(LONG_OUTAGE, true, 1.0), Duration::from_secs(60));
    }
}
