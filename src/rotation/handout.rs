//! Hands out current tokens: the stored token, or the new token after a refresh. Also starts the
//! background work for which callers do not wait.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout_at};

use super::engine::Engine;
use super::error::Error;
use super::protocol::{self, Demand, Freshness, Handout};
use super::single_flight::Outcome;
use super::trigger::Trigger;
use crate::error_chain::error_chain;
use crate::installation::Grant;
use crate::store::{ChainKey, HARD, StoredChain, in_time};

impl Engine {
    /// Returns the chain as soon as it has a token that may be handed out, or an error at the
    /// deadline.
    pub(super) async fn current(
        self: &Arc<Self>,
        key: &ChainKey,
        demand: Demand,
        deadline: Instant,
    ) -> Outcome {
        // The tokens of an installation on hold are still refreshed, so that they are valid when
        // the hold is lifted.
        let stored = self.released(key, deadline).await?;
        let stored = self.settle(key, demand, deadline, stored.into()).await?;
        if stored.is_on_hold {
            // Another caller's refresh may have read the chain before the hold was lifted.
            self.released(key, deadline).await?;
        }
        Ok(stored)
    }

    /// Returns the stored chain, or an error if it is on hold.
    pub(super) async fn released(
        &self,
        key: &ChainKey,
        deadline: Instant,
    ) -> Result<StoredChain, Error> {
        released(key, in_time(deadline, self.read(key)).await?)
    }

    /// Works like [`released`](Self::released), but reads the database. It is for callers that
    /// replace the token that they find: if the cache is out of date, another process has already
    /// replaced the token that it has.
    pub(super) async fn released_current(
        &self,
        key: &ChainKey,
        deadline: Instant,
    ) -> Result<StoredChain, Error> {
        released(key, in_time(deadline, self.read_current(key)).await?)
    }

    /// Makes the chain's token one that is not handed out again, and returns the chain before the
    /// change.
    pub(super) async fn condemn(
        &self,
        key: &ChainKey,
        deadline: Instant,
    ) -> Result<StoredChain, Error> {
        // The token may be replaced in between. The newer one is then condemned: it is not known
        // which one leaked.
        for _ in 0..ROUNDS {
            let stored = self.released_current(key, deadline).await?;
            if stored.chain.refresh.is_none() {
                return Err(Error::NotRotating);
            }
            let (install, generation) = (stored.chain.install, stored.chain.generation);
            let condemned = self.patient_step(key, |chain| {
                let next = protocol::condemn(chain, install, generation);
                let is_done = next.is_some();
                (next, is_done)
            });
            if in_time(deadline, condemned).await?.1 {
                tracing::info!(tenant = %key.tenant, whose = %key.credential, generation, "a leaked token is rotated");
                return Ok(stored);
            }
        }
        Err(Error::Busy)
    }

    async fn settle(
        self: &Arc<Self>,
        key: &ChainKey,
        demand: Demand,
        deadline: Instant,
        mut stored: Arc<StoredChain>,
    ) -> Outcome {
        for _ in 0..ROUNDS {
            let chain = &stored.chain;
            if chain.idle > 0 {
                self.note_use(key, chain.expires_at, false);
            }
            let is_strict = self.config.strict;
            let serves_on = match protocol::hand_out(chain, demand, is_strict, self.clock.now()) {
                Handout::Reinstall => {
                    return Err(Error::reinstall_needed(chain.last_error.as_deref()));
                }
                Handout::Serve { refresh } => {
                    if refresh {
                        self.refresh_quietly(key);
                    }
                    return Ok(stored);
                }
                Handout::Wait { serves_on } => serves_on,
            };
            let refreshed = self.refresh(key, Trigger::Caller(demand))?;
            stored = match refreshed.outcome(deadline).await {
                Ok(stored) => stored,
                Err(Error::Busy) => return Err(Error::Busy),
                Err(error) => {
                    if !serves_on {
                        return Err(error);
                    }
                    // Slack may have revoked this token in the meantime, so it is asked.
                    let is_alive = timeout_at(deadline, self.is_alive(key, &stored)).await;
                    if !is_alive.map_err(|_| Error::Busy)? {
                        return Err(error);
                    }
                    // The chain was read before the refresh, and a hold may have begun since.
                    self.released(key, deadline).await?;
                    return Ok(stored);
                }
            };
        }
        let at = self.clock.now() + Duration::from_secs(1);
        Err(Error::try_again(at, Some("still_expired")))
    }

    /// Returns a current grant: the given grant, which was just read, or a newer one.
    pub(super) async fn current_grant(
        self: &Arc<Self>,
        key: &ChainKey,
        grant: Grant,
        is_suspect: bool,
        patience: Duration,
    ) -> Result<Grant, Error> {
        let freshness = self.guess(&grant);
        let is_soft = freshness == Freshness::Soft && !self.config.strict;
        let serves_while_due = is_soft && !is_suspect;
        self.note_use(key, grant.expires_at, serves_while_due);
        if !is_suspect && freshness == Freshness::Fresh || serves_while_due {
            return Ok(grant);
        }
        let deadline = Instant::now() + patience;
        // Returns the complete pair, because your app may store the installation again.
        let stored = self.current(key, Demand::Current, deadline).await?;
        let grant = &stored.grant;
        Ok(Grant {
            access_token: grant.access_token.clone(),
            refresh_token: grant.refresh_token.clone(),
            expires_at: grant.expires_at,
            scopes: grant.scopes.clone(),
        })
    }

    /// Estimates the freshness of a token from its expiry alone. The estimate is never fresher than
    /// the token.
    fn guess(&self, grant: &Grant) -> Freshness {
        let now = self.clock.now();
        let earliest = self.config.threshold.earliest();
        match grant.expires_at {
            Some(expires_at) if now + HARD >= expires_at => Freshness::Hard,
            Some(expires_at) if grant.refresh_token.is_some() && now + earliest >= expires_at => {
                Freshness::Soft
            }
            _ => Freshness::Fresh,
        }
    }

    /// Starts a refresh in the background, unless one is running or a refresh would be useless now.
    pub(super) fn refresh_quietly(self: &Arc<Self>, key: &ChainKey) {
        if self.may_refresh_quietly(key) {
            // The error means that the process is shutting down. The token is still valid.
            drop(self.refresh(key, Trigger::Use));
        }
    }

    fn may_refresh_quietly(&self, key: &ChainKey) -> bool {
        !self.pace.is_held() && !self.recent.was_checked(key) && !self.flights.is_running(key)
    }

    /// Records, once per pair and process, that a caller uses the chain. A worker then buys the
    /// chain's next pair ahead. If the chain `is_due`, also starts a refresh.
    ///
    /// Uses one task for both. A tokio worker runs the first task that a caller starts by itself. A
    /// second task would wake another thread, at the caller's cost.
    pub(super) fn note_use(
        self: &Arc<Self>,
        key: &ChainKey,
        expires_at: Option<SystemTime>,
        is_due: bool,
    ) {
        // A process that has just started sees all its chains for the first time. A chain that
        // gets no permit now is recorded at a later use.
        let permit = expires_at.and_then(|_| Arc::clone(&self.notes).try_acquire_owned().ok());
        let permit = permit.filter(|_| self.recent.is_first_use(key, expires_at));
        let is_due = is_due && self.may_refresh_quietly(key);
        if permit.is_none() && !is_due {
            return;
        }
        let (engine, key) = (Arc::clone(self), key.clone());
        drop(tokio::spawn(async move {
            if is_due {
                drop(engine.refresh(&key, Trigger::Use));
            }
            if let Some(_permit) = permit {
                engine.touch(&key).await;
            }
        }));
    }

    async fn touch(&self, key: &ChainKey) {
        let touched = self.step(key, None, |chain| (protocol::touch(chain), ()));
        if let Err(error) = touched.await {
            tracing::debug!(tenant = %key.tenant, whose = %key.credential, error = error_chain(&error), "the use of a chain could not be recorded");
        }
    }
}

fn released(key: &ChainKey, stored: Option<StoredChain>) -> Result<StoredChain, Error> {
    let stored = stored.ok_or_else(|| Error::not_installed(key))?;
    if stored.is_on_hold {
        return Err(Error::OnHold);
    }
    Ok(stored)
}

/// How many refreshes one caller waits for.
///
/// Each round ends with a new pair, from this process or from another one. A reinstall causes a
/// second round. If more rounds are needed, a clock is wrong by hours.
const ROUNDS: usize = 4;
