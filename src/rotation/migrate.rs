//! From long-lived tokens to rotating pairs, once the app has turned rotation on.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::engine::{self, Engine, Outage};
use super::flight::Landing;
use super::protocol::{self, Acquired};
use super::refresh::{LONGEST_WAIT, Step, is_of_the_app};
use super::{Error, TokenRotator};
use crate::random;
use crate::secret::AccessToken;
use crate::slack::{Error as SlackError, ErrorClass, ErrorCode};
use crate::store::{Chain, ChainKey, ListCursor};

/// What became of a page of chains.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Migrated {
    /// Chains that rotate already.
    pub already: usize,
    /// Chains whose token was exchanged and whose pair is stored.
    pub exchanged: usize,
    /// Chains that stay as they are, and why. Their tokens serve as before.
    pub kept: Vec<(ChainKey, Error)>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<ListCursor>,
}

impl TokenRotator {
    /// Exchanges the long-lived tokens of a page of chains for rotating pairs
    /// (`oauth.v2.exchange`), bots' and users'. Slowly: Slack takes 50 calls a minute (tier 3).
    ///
    /// To resume, go on from `next`, or begin anew: what rotates is passed over. A token whose
    /// exchange had no answer is never exchanged again, since Slack takes each once; it serves on,
    /// and the tenant rotates from its next installation on. No old token is revoked: that would
    /// uninstall the app.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] if Slack refuses the app itself, as while rotation is not turned
    /// on; [`Error::Interrupted`] after [`shutdown`](Self::shutdown); [`Error::Store`] if the
    /// chains cannot be listed. Then ask for the same page again: what was exchanged is stored.
    /// What concerns one chain is in [`Migrated::kept`].
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any point: an exchange that has begun goes on.
    pub async fn migrate(&self, from: Option<ListCursor>, limit: usize) -> Result<Migrated, Error> {
        let engine = &self.engine;
        let (keys, next) = engine.store.chains(from, limit).await?;
        let mut migrated = Migrated {
            next,
            ..Migrated::default()
        };
        for key in keys {
            match engine.store.chain(&key).await {
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
            let seat = engine.flights.board(&key, || {
                let (engine, key) = (Arc::clone(engine), key.clone());
                async move { engine.exchange(&key).await }
            })?;
            match seat.landing(Instant::now() + PATIENCE).await {
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
    /// Exchanges one token. The intent is written first, and a token with an intent whose outcome
    /// is unknown is left alone.
    async fn exchange(self: &Arc<Self>, key: &ChainKey) -> Landing {
        let owner = u128::from_be_bytes(random::bytes());
        let mut acquired = Acquired::Missing;
        let mut decide = |chain: Option<&Chain>| {
            let (next, answer) = protocol::acquire_exchange(chain, owner, self.clock.now());
            acquired = answer;
            next.map(|next| self.scheduled(next))
        };
        let mut outage = Outage::default();
        let stored = loop {
            match self.store.update(key, None, &mut decide).await {
                Ok(stored) => break stored,
                // The intent may be written: given up now, the token would never be exchanged.
                Err(error) => self.sit_out(&mut outage, error).await?,
            }
        };
        let stored = stored.ok_or(Error::NotInstalled)?;
        let ticket = match acquired {
            Acquired::Go(ticket) => ticket,
            Acquired::Current => return Ok(Arc::new(stored)),
            Acquired::Held(_) => return Err(Error::Busy),
            Acquired::Missing => return Err(Error::NotInstalled),
            Acquired::Dead { error } | Acquired::Wait { error, .. } => {
                let code = ErrorCode::new(error.as_deref().unwrap_or(UNKNOWN));
                return Err(Error::NotExchanged { code });
            }
        };
        let engine = Arc::clone(self);
        let token = AccessToken::new(stored.grant.access_token.expose());
        let token = token.expect("a stored token was checked when it was taken");
        let call = async move {
            let app = &engine.config.credentials;
            engine.slack.oauth_v2_exchange(app, &token).await
        };
        let failure = match self.in_time(key, &ticket, &stored.app_id, call).await {
            Ok(renewed) => {
                if let Err(what) = self.fits(key, &stored.app_id, &renewed) {
                    return match self.mismatched(key, &ticket, &renewed, what).await {
                        Ok(_) => Err(Error::Busy),
                        Err(error) => Err(error),
                    };
                }
                return match self.save(key, &ticket, &renewed, false).await? {
                    Step::Done(stored) => Ok(stored),
                    Step::Again => Err(Error::Busy),
                };
            }
            Err(failure) => failure,
        };
        let name = engine::name(&failure);
        let code = ErrorCode::new(&name);
        let is_definite = !matches!(failure.class(), ErrorClass::Ambiguous | ErrorClass::Unknown);
        let after = match &failure {
            SlackError::RateLimited { retry_after } => {
                retry_after.unwrap_or(PAUSE).min(LONGEST_WAIT)
            }
            _ => Duration::ZERO,
        };
        self.release(key, &ticket, is_definite.into(), Some(after), &name)
            .await;
        match &failure {
            SlackError::Api { .. } if is_of_the_app(&code) => Err(Error::Configuration { code }),
            _ => Err(Error::NotExchanged { code }),
        }
    }
}

/// Slack's tier 3 takes 50 calls a minute.
const PAUSE: Duration = Duration::from_millis(1200);

/// A database that comes back, one call and its save.
const PATIENCE: Duration = Duration::from_secs(60);

const UNKNOWN: &str = "exchange_had_no_answer";
