//! Exchanges long-lived tokens for rotating pairs, after the app has turned on token rotation.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::answer::{self, LONGEST_WAIT};
use super::engine::Engine;
use super::error::Error;
use super::lease::HeldLease;
use super::protocol::{self, Acquired, Response};
use super::rotator::TokenRotator;
use super::single_flight::Outcome;
use super::step::Step;
use crate::flight::fly;
use crate::random;
use crate::slack::{Error as SlackError, ErrorClass, ErrorCode};
use crate::store::{ChainKey, ListCursor};

/// The outcome of migrating one page of chains.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Migrated {
    /// The number of chains that already rotate.
    pub already: usize,
    /// The number of chains whose token was exchanged and whose pair is stored.
    pub exchanged: usize,
    /// The chains that are unchanged, each with the reason. Their tokens stay in use.
    pub kept: Vec<(ChainKey, Error)>,
    /// The cursor of the next page. `None` after the last page.
    pub next: Option<ListCursor>,
}

impl TokenRotator {
    /// Exchanges the long-lived tokens of a page of chains for rotating pairs
    /// (`oauth.v2.exchange`): the tokens of bots and of users.
    ///
    /// Makes one call every 1.2 s, because Slack allows 50 calls a minute (tier 3).
    ///
    /// To resume, continue with the page `next`, or start again from the first page: chains that
    /// already rotate are skipped.
    ///
    /// If the response to an exchange is lost, that token is never exchanged again, because Slack
    /// accepts each token once. The token stays in use, and the tenant rotates from its next
    /// installation on. Old tokens are not revoked, because that would uninstall the app.
    ///
    /// # Errors
    ///
    /// * [`Error::Configuration`] if Slack rejects the app itself, for example because rotation is
    ///   not turned on.
    /// * [`Error::Interrupted`] after [`shutdown`](Self::shutdown).
    /// * [`Error::Store`] if the chains cannot be listed.
    ///
    /// After an error, call `migrate` for the same page again: the exchanged tokens are stored. An
    /// error of a single chain is in [`Migrated::kept`].
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any time. An exchange that has begun continues.
    pub async fn migrate(&self, from: Option<ListCursor>, limit: usize) -> Result<Migrated, Error> {
        let engine = &self.engine;
        let (keys, next) = engine.store.chains(from, limit).await?;
        let mut migrated = Migrated {
            next,
            ..Migrated::default()
        };
        for key in keys {
            match engine.read(&key).await {
                Ok(Some(stored)) if stored.chain.refresh.is_some() => {
                    migrated.already += 1;
                    continue;
                }
                Ok(Some(_)) => {}
                Ok(None) => continue,
                Err(error) => {
                    migrated.kept.push((key, error.into()));
                    continue;
                }
            }
            let paused = Instant::now() + PAUSE;
            let exchange = engine.flights.join(&key, || {
                let (engine, key) = (Arc::clone(engine), key.clone());
                async move { fly(engine.exchange(&key)).await }
            })?;
            match exchange.outcome(Instant::now() + PATIENCE).await {
                Ok(_) => migrated.exchanged += 1,
                Err(error @ (Error::Configuration { .. } | Error::Interrupted)) => {
                    return Err(error);
                }
                Err(error) => migrated.kept.push((key, error)),
            }
            tokio::time::sleep_until(paused).await;
        }
        Ok(migrated)
    }
}

impl Engine {
    /// Exchanges one token. Records the call before it is made. If an earlier recorded call has an
    /// unknown outcome, does not exchange the token.
    async fn exchange(self: &Arc<Self>, key: &ChainKey) -> Outcome {
        let owner = u128::from_be_bytes(random::bytes());
        // Is patient: after an error the call may be recorded, and without a further try the token
        // would never be exchanged.
        let acquired = self.patient_step(key, |chain| {
            protocol::acquire_exchange(chain, owner, self.clock.now())
        });
        let (stored, acquired) = acquired.await?;
        let stored = stored.ok_or_else(|| Error::not_installed(key))?;
        let ticket = match acquired {
            Acquired::Current => return Ok(Arc::new(stored)),
            Acquired::Dead { error } | Acquired::Wait { error, .. } => {
                let code = ErrorCode::new(error.as_deref().unwrap_or(UNKNOWN));
                return Err(Error::NotExchanged { code });
            }
            Acquired::Go(ticket) => ticket,
            Acquired::Ask | Acquired::Held(_) => return Err(Error::Busy),
            Acquired::Missing => return Err(Error::not_installed(key)),
        };
        let (engine, token) = (Arc::clone(self), stored.grant.access_token.clone());
        let call = async move {
            let app = &engine.config.credentials;
            engine.slack.oauth_v2_exchange(app, &token).await
        };
        let lease = HeldLease {
            engine: Arc::clone(self),
            key: key.clone(),
            ticket,
            app_id: stored.app_id,
            is_ahead: false,
        };
        match lease.buy(call, None, Response::Only).await {
            Ok(bought) => match bought? {
                Step::Again | Step::Unproven => Err(Error::Busy),
                Step::Done(stored) => Ok(stored),
            },
            Err(failure) => Err(not_exchanged(&lease, &failure).await),
        }
    }
}

async fn not_exchanged(lease: &HeldLease, failure: &SlackError) -> Error {
    let name = answer::name(failure);
    let code = ErrorCode::new(&name);
    let is_definite = !matches!(failure.class(), ErrorClass::Ambiguous | ErrorClass::Unknown);
    let after = match failure {
        SlackError::RateLimited { retry_after } => retry_after.unwrap_or(PAUSE).min(LONGEST_WAIT),
        _ => Duration::ZERO,
    };
    let given_back = lease.give_back(is_definite.into(), !is_definite, Some(after), &name);
    drop(given_back.await);
    match failure {
        SlackError::Api { .. } if code.is_about_app() => Error::Configuration { code },
        _ => Error::NotExchanged { code },
    }
}

/// The pause between two exchanges: Slack allows 50 calls a minute (tier 3).
const PAUSE: Duration = Duration::from_millis(1200);

/// How long one exchange may take: a database outage, one call and the save.
const PATIENCE: Duration = Duration::from_secs(60);

const UNKNOWN: &str = "exchange_had_no_answer";
