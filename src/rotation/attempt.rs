//! One refresh under a lease: calls Slack, and decides what each outcome means for the chain.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::answer::{self, Answer, LONGEST_WAIT};
use super::error::Error;
use super::guard::WINDOW;
use super::lease::HeldLease;
use super::protocol::{self, CALL, LEASE, Refused, Response, SAVE};
use super::step::Step;
use crate::error_chain::error_chain;
use crate::slack::{Error as SlackError, ErrorClass};
use crate::store::{Mark, StoredChain};

/// A refresh that holds the lease and has recorded its first call.
pub(super) struct Attempt<'a> {
    lease: HeldLease,
    stored: &'a StoredChain,
    /// When the lease began.
    begun: Instant,
    /// How many calls this refresh has recorded in the chain.
    recorded: u32,
    /// How many of these calls have an unknown outcome.
    unknown: u32,
    /// Whether a response may still come after its timeout.
    may_come: bool,
    /// Whether a call was made that could not be recorded.
    has_unrecorded: bool,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(lease: HeldLease, stored: &'a StoredChain, begun: Instant) -> Self {
        Self {
            lease,
            stored,
            begun,
            recorded: 1,
            unknown: 0,
            may_come: false,
            has_unrecorded: false,
        }
    }

    /// Sends the ticket's refresh tokens one after the other until Slack issues a pair.
    pub(super) async fn run(mut self) -> Result<Step, Error> {
        if let Err(code) = self.lease.engine.breaker.check() {
            drop(self.give_back(NOW, code.as_str()).await);
            return Err(Error::Configuration { code });
        }
        let mut error = "unknown".into();
        for mark in self.lease.ticket.candidates.clone() {
            match self.spend(mark).await? {
                ControlFlow::Break(step) => return Ok(step),
                ControlFlow::Continue(code) => error = code,
            }
        }
        self.all_refused(&error).await
    }

    /// Calls Slack with this refresh token. If the outcome is unknown, repeats the call once,
    /// except in an outage of Slack.
    ///
    /// Returns `Continue` with Slack's error code if Slack refuses the token.
    async fn spend(&mut self, mark: Mark) -> Result<ControlFlow<Step, Arc<str>>, Error> {
        // In an outage, the next attempt comes while Slack still accepts the refresh token.
        let mut is_retry = self.stored.chain.failures >= OUTAGE;
        loop {
            if self.unknown == self.recorded {
                if !self.record_call().await {
                    return Ok(ControlFlow::Break(Step::Again));
                }
                self.recorded += 1;
            }
            // The process stalled, for example because of swapping or a debugger. Another process
            // may hold the lease by the time the response arrives.
            if self.begun.elapsed() > LEASE - CALL - SAVE {
                return self.give_back(NOW, "stalled").await.map(ControlFlow::Break);
            }
            let sent = Instant::now();
            let failure = match self.call(mark).await {
                Ok(bought) => return bought.map(ControlFlow::Break),
                Err(failure) => failure,
            };
            let error = answer::name(&failure);
            self.heed(&failure);
            match Answer::of(&failure) {
                Answer::App(code) => {
                    self.lease.engine.breaker.trip(&code, sent);
                    drop(self.give_back(NOW, code.as_str()).await);
                    return Err(Error::Configuration { code });
                }
                Answer::Later { after } => {
                    return self.give_back(after, &error).await.map(ControlFlow::Break);
                }
                Answer::Refused => {
                    self.lease.engine.breaker.reset();
                    return Ok(ControlFlow::Continue(error));
                }
                Answer::Unknown => {
                    self.unknown += 1;
                    self.may_come |= sent.elapsed() >= CALL;
                }
            }
            if is_retry {
                return self.give_back(None, &error).await.map(ControlFlow::Break);
            }
            // Repeats the call at once with the same token, because Slack accepts a refresh token
            // again for a short grace.
            is_retry = true;
        }
    }

    async fn call(&self, mark: Mark) -> Result<Result<Step, Error>, SlackError> {
        let token = self.stored.refresh_token(mark).cloned();
        let token = token.expect("a ticket names tokens of the chain that it was issued for");
        let engine = Arc::clone(&self.lease.engine);
        let call = async move {
            let app = &engine.config.credentials;
            engine.slack.refresh(app, &token).await
        };
        let response = if self.unknown > 0 {
            Response::Second
        } else {
            Response::Only
        };
        self.lease.buy(call, Some(mark), response).await
    }

    /// Records one more call. Returns `false` if the call is no longer needed, because the chain
    /// or its lease has changed. A lease that this refresh still holds is then released.
    async fn record_call(&mut self) -> bool {
        let (engine, key, ticket) = (&self.lease.engine, &self.lease.key, &self.lease.ticket);
        let may_come = self.may_come;
        let recorded = engine.step(key, None, |chain| {
            let next = protocol::repeat(chain, ticket, may_come, engine.clock.now());
            let is_ours = next.is_some();
            (next.or_else(|| protocol::step_back(chain, ticket)), is_ours)
        });
        match recorded.await {
            Ok((_, is_ours)) => is_ours,
            // Makes the call without a record, because it is more important to get the pair of the
            // lost response.
            Err(error) => {
                tracing::warn!(
                    tenant = %key.tenant, whose = %key.credential, error = error_chain(&error),
                    "the repeated call to Slack could not be recorded; it is made anyway"
                );
                self.has_unrecorded = true;
                true
            }
        }
    }

    /// Pauses background refreshes if Slack limits the rate of calls. Logs an error if the refresh
    /// token belongs to another app or is of another kind.
    fn heed(&self, error: &SlackError) {
        match (error, error.class()) {
            (SlackError::RateLimited { retry_after }, _) => {
                let wait = retry_after.unwrap_or(UNSAID).min(LONGEST_WAIT);
                self.lease.engine.pace.hold(wait);
            }
            (SlackError::Api { code, .. }, ErrorClass::Configuration | ErrorClass::CallerBug)
                if !code.is_about_app() =>
            {
                tracing::error!(
                    tenant = %self.lease.key.tenant, whose = %self.lease.key.credential, %code,
                    "Slack says that this chain's refresh token is another app's or of another type"
                );
            }
            _ => {}
        }
    }

    /// Marks the chain dead, unless it has got further refresh tokens in the meantime, or a process
    /// may hold another pair.
    async fn all_refused(&self, error: &Arc<str>) -> Result<Step, Error> {
        let (engine, key, ticket) = (&self.lease.engine, &self.lease.key, &self.lease.ticket);
        if self.has_unrecorded && self.may_come {
            // The record does not say that the first call may bring a pair.
            return self.give_back(None, error).await;
        }
        if !engine.deaths.allow() {
            tracing::error!(
                tenant = %key.tenant, whose = %key.credential,
                "Slack refused too many chains within 5 minutes; no chain is marked dead"
            );
            return self.give_back(Some(WINDOW), error).await;
        }
        let refused = engine.step(key, None, |chain| {
            protocol::refuse(chain, ticket, &ticket.candidates, error, engine.clock.now())
        });
        let refused = refused.await;
        if !matches!(refused, Ok((_, Refused::Dead))) {
            engine.deaths.spare();
        }
        match refused?.1 {
            Refused::Dead => Err(Error::reinstall_needed(Some(error))),
            Refused::Later(until) => Err(Error::try_again(until, Some(error))),
            Refused::Moved => Ok(Step::Again),
        }
    }

    async fn give_back(&self, after: Option<Duration>, error: &str) -> Result<Step, Error> {
        let known = self.recorded - self.unknown;
        let fruitless = known.saturating_sub(self.has_unrecorded.into());
        let may_come = self.may_come;
        self.lease
            .give_back(fruitless, may_come, after, error)
            .await
    }
}

/// After this many failures in a row, one attempt makes one call.
const OUTAGE: u32 = 6;

/// The next try may start immediately.
const NOW: Option<Duration> = Some(Duration::ZERO);

/// The wait after a rate limit without `Retry-After`.
const UNSAID: Duration = Duration::from_secs(30);
