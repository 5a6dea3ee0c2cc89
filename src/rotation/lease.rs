//! A lease that this process holds, and how it is given back after a refresh without a pair.

use std::sync::Arc;
use std::time::Duration;

use super::engine::Engine;
use super::error::Error;
use super::protocol::{self, LEASE, Released, Ticket};
use crate::store::ChainKey;
use crate::tenant::AppId;

/// The lease of one chain, and the intent that is recorded under it.
#[derive(Clone)]
pub(super) struct HeldLease {
    pub(super) engine: Arc<Engine>,
    pub(super) key: ChainKey,
    pub(super) ticket: Ticket,
    /// Whose tokens the chain has.
    pub(super) app_id: AppId,
    /// No caller asked for the pair.
    pub(super) is_ahead: bool,
}

impl HeldLease {
    /// Gives the lease back, and returns the error that says when the next try may be: after this
    /// time, or after the backoff. If the database is away for long, the lease lapses by itself.
    pub(super) async fn give_back(
        &self,
        fruitless: u32,
        after: Option<Duration>,
        error: &str,
    ) -> Error {
        let now = self.engine.clock.now();
        let share = 0.5 + self.engine.jitter.random();
        let mut retry_at = now;
        let released = self.engine.patient_step(&self.key, |chain| {
            let failures = chain.map_or(0, |chain| chain.failures);
            retry_at = now + after.unwrap_or_else(|| backoff(failures).mul_f64(share));
            let released = Released {
                fruitless,
                retry_at,
                error: error.into(),
            };
            (protocol::release(chain, &self.ticket, &released), ())
        });
        if let Err(error) = released.await {
            tracing::warn!(chain = %self.key, %error, "a lease could not be given back");
            retry_at += LEASE;
        }
        Error::try_again(retry_at, Some(error))
    }
}

/// 1 s, doubled by each failure, up to a minute.
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
}
