//! Refreshes a chain until it is current or the refresh fails. One task per chain and process does
//! so, and the lease selects one process.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::attempt::Attempt;
use super::engine::Engine;
use super::error::Error;
use super::lease::HeldLease;
use super::protocol::{self, Acquired, Demand, Freshness, LEASE};
use super::single_flight::{Outcome, Waiter};
use super::step::Step;
use super::trigger::Trigger;
use crate::error_chain::error_chain;
use crate::flight::fly;
use crate::metrics;
use crate::random;
use crate::span::{self, Ended, Operation};
use crate::store::{ChainKey, InstallId, StoredChain};

impl Engine {
    /// Joins this process's running refresh of the chain, or starts one.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`] after a shutdown.
    pub(super) fn refresh(
        self: &Arc<Self>,
        key: &ChainKey,
        trigger: Trigger,
    ) -> Result<Waiter, Error> {
        self.flights.join(key, || {
            let (engine, key) = (Arc::clone(self), key.clone());
            async move {
                // The commit of the lease pins the key that the save needs.
                let span = span::refresh();
                span.tenant(&key.tenant).kind(key.credential.kind());
                let outcome = span.run(fly(engine.run(&key, trigger)), ended).await;
                if outcome.is_err() && matches!(trigger, Trigger::Caller(_)) {
                    engine.ask_for_all(&key).await;
                }
                engine.report(&key, &outcome);
                outcome
            }
        })
    }

    async fn run(self: &Arc<Self>, key: &ChainKey, trigger: Trigger) -> Outcome {
        let demand = match trigger {
            Trigger::Caller(demand) => demand,
            Trigger::Use | Trigger::Worker => Demand::Current,
        };
        let give_up = Instant::now() + LONGEST;
        let mut watch = Watch::default();
        let mut owner = new_owner();
        let mut asked = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let (stored, begun, acquired) = self.acquire(key, demand, owner, &watch, asked).await?;
            match acquired {
                Acquired::Current => return Ok(Arc::new(stored)),
                Acquired::Dead { error } => return Err(Error::reinstall_needed(error.as_deref())),
                Acquired::Ask => {
                    self.prove(key, &stored).await;
                    asked = Some((stored.chain.install, stored.chain.generation));
                }
                Acquired::Go(ticket) => {
                    // A late task of this ticket must not release the next ticket's lease.
                    owner = new_owner();
                    let lease = HeldLease {
                        engine: Arc::clone(self),
                        key: key.clone(),
                        ticket,
                        app_id: stored.app_id.clone(),
                        is_ahead: trigger == Trigger::Worker,
                    };
                    let attempted = Attempt::new(lease, &stored, begun).run().await;
                    metrics::REFRESH_ATTEMPTS.add(labels(key, &attempted));
                    if let Step::Done(stored) = attempted? {
                        return Ok(stored);
                    }
                }
                Acquired::Held(lease) => {
                    if !matches!(trigger, Trigger::Caller(_)) {
                        return Ok(Arc::new(stored));
                    }
                    if watch.see(lease.owner) {
                        metrics::LEASE_WAITS.add([]);
                    }
                    tokio::time::sleep(self.jitter.around(pause)).await;
                    pause = (pause * 8 / 5).min(LONGEST_PAUSE);
                }
                Acquired::Missing => return Err(Error::not_installed(key)),
                Acquired::Wait { until, error } => {
                    return Err(Error::try_again(until, error.as_deref()));
                }
            }
            if Instant::now() >= give_up {
                return Err(Error::Busy);
            }
            if self.flights.is_closed() {
                return Err(Error::Interrupted);
            }
        }
    }

    /// Takes the lease, if the chain needs a refresh. Returns the chain, the time at which the
    /// lease began, and the decision of the protocol.
    async fn acquire(
        &self,
        key: &ChainKey,
        demand: Demand,
        owner: u128,
        watch: &Watch,
        asked: Option<(InstallId, u64)>,
    ) -> Result<(StoredChain, Instant, Acquired), Error> {
        let acquired = self.patient_step(key, |chain| {
            let (begun, now) = (Instant::now(), self.clock.now());
            let (next, acquired) =
                protocol::acquire(chain, demand, owner, watch.lapsed(), asked, now);
            match (acquired, self.breaker.reason()) {
                (Acquired::Go(_), Some(code)) => (None, Err(Error::Configuration { code })),
                (acquired, _) => (next, Ok((begun, acquired))),
            }
        });
        let (stored, acquired) = acquired.await?;
        let (begun, acquired) = acquired?;
        let stored = stored.ok_or_else(|| Error::not_installed(key))?;
        Ok((stored, begun, acquired))
    }

    /// Logs the outcome, and makes background work skip this chain while there is nothing to do.
    fn report(&self, key: &ChainKey, outcome: &Outcome) {
        let now = self.clock.now();
        let pause = match outcome {
            Ok(stored) if protocol::freshness(&stored.chain, now) > Freshness::Fresh => HELD_PAUSE,
            // The caller's estimate was soft, but the chain is not soft yet, because the estimate
            // ignores its offset. The background skips the chain until it is soft.
            Ok(stored) => {
                let soft_at = stored.chain.soft_at();
                let wait = soft_at.and_then(|soft_at| soft_at.duration_since(now).ok());
                wait.unwrap_or(LONGEST_SKIP).min(LONGEST_SKIP)
            }
            Err(Error::TryAgain { at, .. }) => {
                at.duration_since(now).unwrap_or_default().min(LONGEST_SKIP)
            }
            // Once the database responds, a call of unknown outcome must be repeated soon.
            Err(error) if error.is_transient() => HELD_PAUSE,
            Err(_) => DEAD_PAUSE,
        };
        // In the meantime, another process may make a call of unknown outcome.
        let worker_pause = match outcome {
            Ok(_) | Err(Error::TryAgain { .. }) => pause.min(WORKER_SKIP),
            Err(_) => pause,
        };
        self.recent.note_checked(key, pause, worker_pause);
        match outcome {
            Ok(_) => {}
            // A fault of the database concerns all chains.
            Err(error @ Error::Store(_)) => {
                if let Some(left_out) = self.log_limit.admit("refresh") {
                    let error = error_chain(error);
                    tracing::warn!(
                        tenant = %key.tenant, whose = %key.credential, left_out, error,
                        "a token could not be refreshed"
                    );
                }
            }
            Err(error @ Error::ReinstallNeeded { .. }) => {
                let error = error_chain(error);
                tracing::warn!(tenant = %key.tenant, whose = %key.credential, error, "a token could not be refreshed");
            }
            Err(error) => {
                let error = error_chain(error);
                tracing::info!(tenant = %key.tenant, whose = %key.credential, error, "a token could not be refreshed");
            }
        }
    }
}

/// Returns the labels of an attempt: whose token, the result, and the cause.
fn labels(key: &ChainKey, attempted: &Result<Step, Error>) -> [&'static str; 3] {
    let (result, cause) = match attempted {
        Ok(Step::Done(_) | Step::Unproven) => ("refreshed", metrics::NONE),
        Ok(Step::Again) => ("overtaken", metrics::NONE),
        Err(Error::ReinstallNeeded { code }) => ("dead", metrics::code(code.as_str())),
        Err(Error::Configuration { code } | Error::TryAgain { code, .. }) => {
            ("failed", metrics::code(code.as_str()))
        }
        Err(error) => ("failed", error.name()),
    };
    [key.credential.kind(), result, cause]
}

/// Returns how a refresh ended, for its span.
fn ended(span: &Operation, outcome: &Outcome) -> Ended {
    match outcome {
        Ok(stored) => {
            span.app(&stored.app_id);
            Ended::well("current")
        }
        Err(error) => Ended::badly("failed", error.name()),
    }
}

fn new_owner() -> u128 {
    u128::from_be_bytes(random::bytes())
}

/// Watches another owner's lease on this process's monotonic clock, so that the clocks of the
/// processes need not agree.
#[derive(Default)]
struct Watch(Option<(u128, Instant)>);

impl Watch {
    /// Returns whether this owner was not seen before.
    fn see(&mut self, owner: u128) -> bool {
        let is_new = self.0.is_none_or(|(seen, _)| seen != owner);
        if is_new {
            self.0 = Some((owner, Instant::now()));
        }
        is_new
    }

    /// Returns the owner whose lease was seen for longer than [`LEASE`].
    fn lapsed(&self) -> Option<u128> {
        let (owner, since) = self.0?;
        (since.elapsed() > LEASE).then_some(owner)
    }
}

/// How long a refresh runs before it gives up: longer than a lease and the refresh after it.
/// Callers that still wait get [`Error::Busy`].
const LONGEST: Duration = Duration::from_secs(60);

/// The first pause between two reads of a chain that another process refreshes. Slack responds
/// within 100 to 500 ms.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// The longest time for which background work skips a chain.
const LONGEST_SKIP: Duration = Duration::from_secs(30 * 60);

/// The longest time for which the worker skips a chain that was refreshed or waits for its next
/// try. The worker looks at it only if the chain is due.
const WORKER_SKIP: Duration = Duration::from_secs(5);

/// How long background work skips a chain that another process refreshes, or whose database does
/// not respond.
const HELD_PAUSE: Duration = Duration::from_secs(2);

/// How long background work skips a chain that cannot be refreshed, for example a dead one.
const DEAD_PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn anothers_lease_has_lapsed_when_it_was_seen_for_longer_than_a_lease() {
        let mut watch = Watch::default();
        assert_eq!(watch.lapsed(), None);
        watch.see(1);
        let moment = Duration::from_millis(1);
        tokio::time::advance(LEASE).await;
        // Seeing the same owner again does not restart the watch.
        watch.see(1);
        assert_eq!(watch.lapsed(), None);
        tokio::time::advance(moment).await;
        watch.see(1);
        assert_eq!(watch.lapsed(), Some(1));
        // Seeing another owner does.
        watch.see(2);
        assert_eq!(watch.lapsed(), None);
        tokio::time::advance(LEASE + moment).await;
        assert_eq!(watch.lapsed(), Some(2));
    }
}
