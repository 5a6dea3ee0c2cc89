//! One refresh under the lease: the calls to Slack, and what their outcomes mean for the chain.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::answer::{self, Answer, LONGEST_WAIT, is_of_the_app};
use super::buy::Step;
use super::error::Error;
use super::guard::WINDOW;
use super::lease::HeldLease;
use super::protocol::{self, CALL, LEASE, Refused, SAVE};
use crate::slack::{Error as SlackError, ErrorClass};
use crate::store::{Mark, StoredChain};

/// A refresh whose lease is taken and whose first call is recorded.
pub(super) struct Attempt<'a> {
    lease: HeldLease,
    stored: &'a StoredChain,
    /// When the lease began.
    begun: Instant,
    /// Calls that the record tells of.
    recorded: u32,
    /// Those of them whose outcome nobody knows.
    unknown: u32,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(lease: HeldLease, stored: &'a StoredChain, begun: Instant) -> Self {
        Self {
            lease,
            stored,
            begun,
            recorded: 1,
            unknown: 0,
        }
    }

    /// Tries the ticket's refresh tokens one after the other until one buys a pair.
    pub(super) async fn run(mut self) -> Result<Step, Error> {
        if let Err(code) = self.lease.engine.breaker.check() {
            self.give_back(NOW, code.as_str()).await;
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

    /// Calls Slack with this refresh token, and if there is no answer, once more. Goes on with
    /// the reason if Slack refuses the token.
    async fn spend(&mut self, mark: Mark) -> Result<ControlFlow<Step, Arc<str>>, Error> {
        let mut is_retry = false;
        loop {
            if self.unknown == self.recorded {
                if !self.record_call().await {
                    return Ok(ControlFlow::Break(Step::Again));
                }
                self.recorded += 1;
            }
            // Stalled since, as under a debugger or a full swap: the lease may be another's
            // by the time the answer comes.
            if self.begun.elapsed() > LEASE - CALL - SAVE {
                return Err(self.give_back(NOW, "stalled").await);
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
                    self.give_back(NOW, code.as_str()).await;
                    return Err(Error::Configuration { code });
                }
                Answer::Later { after } => return Err(self.give_back(after, &error).await),
                Answer::Refused => {
                    self.lease.engine.breaker.reset();
                    return Ok(ControlFlow::Continue(error));
                }
                Answer::Unknown => self.unknown += 1,
            }
            if is_retry {
                return Err(self.give_back(None, &error).await);
            }
            // Once more, at once, and with the same token: Slack takes it for a while.
            is_retry = true;
        }
    }

    async fn call(&self, mark: Mark) -> Result<Result<Step, Error>, SlackError> {
        let token = self.stored.refresh_token(mark).cloned();
        let token = token.expect("a ticket names tokens of the chain that it was made for");
        let engine = Arc::clone(&self.lease.engine);
        let call = async move {
            let app = &engine.config.credentials;
            engine.slack.refresh(app, &token).await
        };
        self.lease.buy(call).await
    }

    /// Records one more call. `false` if there is no need of it any more.
    async fn record_call(&self) -> bool {
        let (engine, key, ticket) = (&self.lease.engine, &self.lease.key, &self.lease.ticket);
        let recorded = engine.step(key, None, |chain| {
            let next = protocol::repeat(chain, ticket, engine.clock.now());
            let is_ours = next.is_some();
            (next, is_ours)
        });
        match recorded.await {
            Ok((_, is_ours)) => is_ours,
            // The pair that the lost answer had is worth more than the record.
            Err(error) => {
                tracing::warn!(chain = %key, %error, "a repeated refresh could not be noted");
                true
            }
        }
    }

    /// What an answer tells beside what it means for its refresh token.
    fn heed(&self, error: &SlackError) {
        match (error, error.class()) {
            (SlackError::RateLimited { retry_after }, _) => {
                let wait = retry_after.unwrap_or(UNSAID).min(LONGEST_WAIT);
                self.lease.engine.pace.hold(wait);
            }
            (SlackError::Api { code, .. }, ErrorClass::Configuration | ErrorClass::CallerBug)
                if !is_of_the_app(code) =>
            {
                tracing::error!(
                    chain = %self.lease.key, %code,
                    "Slack takes this chain's refresh token for another app's, or of another kind"
                );
            }
            _ => {}
        }
    }

    /// Gives the chain up, unless it has other refresh tokens by now.
    async fn all_refused(&self, error: &Arc<str>) -> Result<Step, Error> {
        let (engine, key, ticket) = (&self.lease.engine, &self.lease.key, &self.lease.ticket);
        if !engine.deaths.allow() {
            tracing::error!(chain = %key, "too many chains are refused at once; none is given up");
            return Err(self.give_back(Some(WINDOW), error).await);
        }
        let refused = engine.step(key, None, |chain| {
            protocol::refuse(chain, ticket, &ticket.candidates, error)
        });
        let refused = refused.await;
        if !matches!(refused, Ok((_, Refused::Dead))) {
            engine.deaths.spare();
        }
        match refused?.1 {
            Refused::Dead => Err(Error::reinstall_needed(Some(error))),
            Refused::Moved => Ok(Step::Again),
        }
    }

    async fn give_back(&self, after: Option<Duration>, error: &str) -> Error {
        let fruitless = self.recorded - self.unknown;
        self.lease.give_back(fruitless, after, error).await
    }
}

/// The next try may be at once.
const NOW: Option<Duration> = Some(Duration::ZERO);

/// If Slack asks to wait and does not say how long.
const UNSAID: Duration = Duration::from_secs(30);
