//! Hands out a token that is current: the stored one, or the one that a refresh brings; and starts
//! what the caller does not wait for.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::engine::Engine;
use super::error::Error;
use super::protocol::{self, Demand, Freshness, Handout};
use super::refresh::Trigger;
use super::single_flight::Outcome;
use crate::installation::Grant;
use crate::store::{ChainKey, HARD, SOFT, SPREAD, StoredChain};

impl Engine {
    /// The chain, once it has a token that may be handed out.
    pub(super) async fn current(
        self: &Arc<Self>,
        key: &ChainKey,
        demand: Demand,
        patience: Duration,
    ) -> Outcome {
        // Its tokens are refreshed all the same, so that it can be let go again.
        let stored = self.released(key).await?;
        let stored = self.settle(key, demand, patience, stored.into()).await?;
        if stored.is_on_hold {
            // A refresh that others began may have read that before the hold ended.
            self.released(key).await?;
        }
        Ok(stored)
    }

    /// The chain, unless it is on hold.
    async fn released(&self, key: &ChainKey) -> Result<StoredChain, Error> {
        let stored = self.store.chain(key).await?.ok_or(Error::NotInstalled)?;
        if stored.is_on_hold {
            return Err(Error::OnHold);
        }
        Ok(stored)
    }

    async fn settle(
        self: &Arc<Self>,
        key: &ChainKey,
        demand: Demand,
        patience: Duration,
        mut stored: Arc<StoredChain>,
    ) -> Outcome {
        let deadline = Instant::now() + patience;
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
                    // Nobody knows whether Slack has ended this token meanwhile; it can tell.
                    if !serves_on || !self.is_alive(key, &stored).await {
                        return Err(error);
                    }
                    // This was read before the refresh: a hold may have begun since.
                    self.released(key).await?;
                    return Ok(stored);
                }
            };
        }
        let at = self.clock.now() + Duration::from_secs(1);
        Err(Error::try_again(at, Some("still_expired")))
    }

    /// A current grant, given the one that was just read.
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
        // A pair is handed out whole: the host may store it again.
        let stored = self.current(key, Demand::Current, patience).await?;
        let grant = &stored.grant;
        Ok(Grant {
            access_token: grant.access_token.clone(),
            refresh_token: grant.refresh_token.clone(),
            expires_at: grant.expires_at,
            scopes: grant.scopes.clone(),
        })
    }

    /// The freshness of a token by its end alone: never fresher than it is.
    fn guess(&self, grant: &Grant) -> Freshness {
        let now = self.clock.now();
        match grant.expires_at {
            Some(expires_at) if now + HARD >= expires_at => Freshness::Hard,
            Some(expires_at)
                if grant.refresh_token.is_some() && now + SOFT + SPREAD >= expires_at =>
            {
                Freshness::Soft
            }
            _ => Freshness::Fresh,
        }
    }

    /// Starts a refresh that no caller waits for, unless one is running or none can be of use.
    pub(super) fn refresh_quietly(self: &Arc<Self>, key: &ChainKey) {
        if self.may_refresh_quietly(key) {
            // Closed: the process is going down, and the token still serves.
            drop(self.refresh(key, Trigger::Use));
        }
    }

    fn may_refresh_quietly(&self, key: &ChainKey) -> bool {
        !self.pace.is_held() && !self.recent.was_checked(key) && !self.flights.is_running(key)
    }

    /// Records, once per pair and process, that a caller uses the chain, so that its next pair is
    /// bought ahead; and if it `is_due`, buys that now.
    ///
    /// All of it on one task: a worker of tokio's takes the first one that a caller starts up by
    /// itself, and for a second one wakes another thread, which the caller pays for.
    pub(super) fn note_use(
        self: &Arc<Self>,
        key: &ChainKey,
        expires_at: Option<SystemTime>,
        is_due: bool,
    ) {
        // A process that has just begun meets all its chains for the first time. Those that get
        // no permit now are recorded at a later use.
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
            tracing::debug!(chain = %key, %error, "the use of a chain could not be noted");
        }
    }
}

/// A round ends with a new pair, or with one that another process saved; two in a row are a
/// reinstall, more are a clock that is hours off.
const ROUNDS: usize = 4;
