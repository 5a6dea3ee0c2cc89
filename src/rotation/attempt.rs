//! One refresh under the lease: the calls to Slack, and what their outcomes mean for the chain.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::answer::{self, Answer, LONGEST_WAIT, is_of_the_app};
use super::buy::Step;
use super::engine::Engine;
use super::error::Error;
use super::guard::WINDOW;
use super::protocol::{self, CALL, LEASE, Refused, SAVE, Ticket};
use crate::slack::{Error as SlackError, ErrorClass};
use crate::store::{ChainKey, Mark, StoredChain};

/// A refresh whose lease is taken and whose first call is recorded.
pub(super) struct Attempt<'a> {
    pub(super) engine: &'a Arc<Engine>,
    pub(super) key: &'a ChainKey,
    pub(super) ticket: &'a Ticket,
    pub(super) stored: &'a StoredChain,
    /// When the lease was asked for.
    pub(super) begun: Instant,
    /// No caller asked for the pair.
    pub(super) is_ahead: bool,
}

/// Calls that the record tells of, and those of them whose outcome nobody knows.
struct Calls {
    recorded: u32,
    unknown: u32,
}

impl Calls {
    fn fruitless(&self) -> u32 {
        self.recorded - self.unknown
    }
}

/// What became of one refresh token.
enum Spent {
    Over(Step),
    Refused(Arc<str>),
}

impl Attempt<'_> {
    /// Tries the ticket's refresh tokens one after the other until one buys a pair.
    pub(super) async fn run(&self) -> Result<Step, Error> {
        let mut calls = Calls {
            recorded: 1,
            unknown: 0,
        };
        if let Err(code) = self.engine.breaker.check() {
            self.give_back(&calls, NOW, code.as_str()).await;
            return Err(Error::Configuration { code });
        }
        let mut error = "unknown".into();
        for mark in &self.ticket.candidates {
            match self.spend(*mark, &mut calls).await? {
                Spent::Over(step) => return Ok(step),
                Spent::Refused(code) => error = code,
            }
        }
        self.all_refused(&calls, &error).await
    }

    /// Calls Slack with this refresh token, and if there is no answer, once more.
    async fn spend(&self, mark: Mark, calls: &mut Calls) -> Result<Spent, Error> {
        let mut is_retry = false;
        loop {
            if calls.fruitless() == 0 {
                if !self.record_call().await {
                    return Ok(Spent::Over(Step::Again));
                }
                calls.recorded += 1;
            }
            // Stalled since, as under a debugger or a full swap: the lease may be another's
            // by the time the answer comes.
            if self.begun.elapsed() > LEASE - CALL - SAVE {
                return Err(self.give_back(calls, NOW, "stalled").await);
            }
            let sent = Instant::now();
            let failure = match self.call(mark).await {
                Ok(bought) => return bought.map(Spent::Over),
                Err(failure) => failure,
            };
            let error = answer::name(&failure);
            self.heed(&failure);
            match Answer::of(&failure) {
                Answer::App(code) => {
                    self.engine.breaker.trip(&code, sent);
                    self.give_back(calls, NOW, code.as_str()).await;
                    return Err(Error::Configuration { code });
                }
                Answer::Later { after } => return Err(self.give_back(calls, after, &error).await),
                Answer::Refused => {
                    self.engine.breaker.reset();
                    return Ok(Spent::Refused(error));
                }
                Answer::Unknown => calls.unknown += 1,
            }
            if is_retry {
                return Err(self.give_back(calls, None, &error).await);
            }
            // Once more, at once, and with the same token: Slack takes it for a while.
            is_retry = true;
        }
    }

    async fn call(&self, mark: Mark) -> Result<Result<Step, Error>, SlackError> {
        let token = self.stored.refresh_token(mark).cloned();
        let token = token.expect("a ticket names tokens of the chain that it was made for");
        let engine = Arc::clone(self.engine);
        let call = async move {
            let app = &engine.config.credentials;
            engine.slack.refresh(app, &token).await
        };
        let app_id = &self.stored.app_id;
        self.engine
            .buy(self.key, self.ticket, app_id, self.is_ahead, call)
            .await
    }

    /// Records one more call. `false` if there is no need of it any more.
    async fn record_call(&self) -> bool {
        let recorded = self.engine.step(self.key, None, |chain| {
            let next = protocol::repeat(chain, self.ticket, self.engine.clock.now());
            let is_ours = next.is_some();
            (next, is_ours)
        });
        match recorded.await {
            Ok((_, is_ours)) => is_ours,
            // The pair that the lost answer had is worth more than the record.
            Err(error) => {
                tracing::warn!(chain = %self.key, %error, "a repeated refresh could not be noted");
                true
            }
        }
    }

    /// What an answer tells beside what it means for its refresh token.
    fn heed(&self, error: &SlackError) {
        match (error, error.class()) {
            (SlackError::RateLimited { retry_after }, _) => {
                let wait = retry_after.unwrap_or(UNSAID).min(LONGEST_WAIT);
                self.engine.pace.hold(wait);
            }
            (SlackError::Api { code, .. }, ErrorClass::Configuration | ErrorClass::CallerBug)
                if !is_of_the_app(code) =>
            {
                tracing::error!(
                    chain = %self.key, %code,
                    "Slack takes this chain's refresh token for another app's, or of another kind"
                );
            }
            _ => {}
        }
    }

    /// Gives the chain up, unless it has other refresh tokens by now.
    async fn all_refused(&self, calls: &Calls, error: &Arc<str>) -> Result<Step, Error> {
        let (key, deaths) = (self.key, &self.engine.deaths);
        if !deaths.allow() {
            tracing::error!(chain = %key, "too many chains are refused at once; none is given up");
            return Err(self.give_back(calls, Some(WINDOW), error).await);
        }
        let refused = self.engine.step(key, None, |chain| {
            protocol::refuse(chain, self.ticket, &self.ticket.candidates, error)
        });
        let refused = refused.await;
        if !matches!(refused, Ok((_, Refused::Dead))) {
            deaths.spare();
        }
        match refused?.1 {
            Refused::Dead => Err(Error::reinstall_needed(Some(error))),
            Refused::Moved => Ok(Step::Again),
        }
    }

    async fn give_back(&self, calls: &Calls, after: Option<Duration>, error: &str) -> Error {
        self.engine
            .give_back(self.key, self.ticket, calls.fruitless(), after, error)
            .await
    }
}

/// The next try may be at once.
const NOW: Option<Duration> = Some(Duration::ZERO);

/// If Slack asks to wait and does not say how long.
const UNSAID: Duration = Duration::from_secs(30);
