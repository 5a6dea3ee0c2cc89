//! Buys a pair: calls Slack, and saves what it issues. Slack has handed it over, and it is nowhere
//! else.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::engine::Engine;
use super::error::Error;
use super::protocol::{self, CALL, Committed, Issued, Ticket};
use crate::secret::same;
use crate::slack::{Error as SlackError, Renewed, TransportError};
use crate::store::{ChainKey, Credential, Mark, StoredChain};
use crate::tenant::AppId;

/// What a refresh came to, if not to an error.
pub(super) enum Step {
    /// The chain has moved on meanwhile: look again.
    Again,
    /// This is the chain now.
    Done(Arc<StoredChain>),
}

impl Engine {
    /// Makes this call, and saves the pair that it brings.
    ///
    /// # Errors
    ///
    /// Slack's, if the call brings no pair; within the result, that of the save.
    pub(super) async fn buy<F>(
        self: &Arc<Self>,
        key: &ChainKey,
        ticket: &Ticket,
        app_id: &AppId,
        is_ahead: bool,
        call: F,
    ) -> Result<Result<Step, Error>, SlackError>
    where
        F: Future<Output = Result<Renewed, SlackError>> + Send + 'static,
    {
        let renewed = self.in_time(key, ticket, app_id, call).await?;
        self.breaker.reset();
        Ok(match fits(key, app_id, &renewed) {
            Ok(()) => self.save(key, ticket, &renewed, is_ahead).await,
            Err(what) => Err(self.mismatched(key, ticket, &renewed, what).await),
        })
    }

    /// The response to the call. One that comes too late for the lease is not thrown away: its pair
    /// is saved, or kept as an alternate, when it comes.
    async fn in_time<F>(
        self: &Arc<Self>,
        key: &ChainKey,
        ticket: &Ticket,
        app_id: &AppId,
        call: F,
    ) -> Result<Renewed, SlackError>
    where
        F: Future<Output = Result<Renewed, SlackError>> + Send + 'static,
    {
        let mut call = tokio::spawn(call);
        let lost = |cause| SlackError::Transport(TransportError::Lost(cause));
        match tokio::time::timeout(CALL, &mut call).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(interrupted)) => Err(lost(interrupted.into())),
            Err(late) => {
                let engine = Arc::clone(self);
                let (key, ticket, app_id) = (key.clone(), ticket.clone(), app_id.clone());
                let late_task = self.flights.late_task();
                drop(tokio::spawn(async move {
                    let _late_task = late_task;
                    if let Ok(Ok(renewed)) = call.await
                        && fits(&key, &app_id, &renewed).is_ok()
                        && let Err(error) = engine.save(&key, &ticket, &renewed, false).await
                    {
                        tracing::error!(chain = %key, %error, "a late pair is lost");
                    }
                }));
                Err(lost(late.into()))
            }
        }
    }

    /// A pair that is not this chain's is not stored, and not dropped without a word: the refresh
    /// token that bought it is spent, and is tried once more while Slack takes it.
    async fn mismatched(
        &self,
        key: &ChainKey,
        ticket: &Ticket,
        renewed: &Renewed,
        what: &'static str,
    ) -> Error {
        let refresh_token = renewed.grant.refresh_token.as_ref().map(Mark::of);
        tracing::error!(
            chain = %key, what, ?refresh_token,
            "Slack answered a refresh with a token of another place; it is not stored"
        );
        self.give_back(key, ticket, 0, None, what).await
    }

    /// Until the pair is saved, or kept beside the one that is, or revoked because nothing is
    /// there that it belongs to.
    async fn save(
        &self,
        key: &ChainKey,
        ticket: &Ticket,
        renewed: &Renewed,
        is_ahead: bool,
    ) -> Result<Step, Error> {
        let refresh_token = renewed.grant.refresh_token.as_ref();
        let fresh = Issued {
            refresh: Mark::of(refresh_token.expect("an answer without one is malformed")),
            issued_at: renewed.at,
            expires_at: renewed.grant.expires_at,
            is_ahead,
        };
        let give_up = Instant::now() + KEEP_TRYING;
        let mut pause = FIRST_PAUSE;
        let mut is_doubtful = false;
        loop {
            let saved = self.step(key, Some(&renewed.grant), |chain| {
                let (next, committed) = protocol::commit(chain, ticket, &fresh, self.clock.now());
                // An earlier call with this refresh token may have bought the pair that lives.
                is_doubtful |= next.is_some() && chain.is_some_and(|chain| chain.attempts > 1);
                (next, committed)
            });
            let error = match saved.await {
                Ok((stored, committed)) => {
                    return Ok(self
                        .saved(key, renewed, stored, committed, is_doubtful)
                        .await);
                }
                Err(error) => error,
            };
            if Instant::now() >= give_up {
                tracing::error!(chain = %key, %error, "a pair that Slack issued is lost");
                return Err(error.into());
            }
            tracing::error!(chain = %key, %error, "a pair could not be saved yet");
            tokio::time::sleep(self.jitter.around(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn saved(
        &self,
        key: &ChainKey,
        renewed: &Renewed,
        stored: Option<StoredChain>,
        committed: Committed,
        is_doubtful: bool,
    ) -> Step {
        match (committed, stored) {
            (Committed::Saved, Some(stored)) => {
                tracing::info!(chain = %key, generation = stored.chain.generation, "refreshed");
                if !is_doubtful || !self.end_if_refused(key, &stored, true).await {
                    return Step::Done(Arc::new(stored));
                }
            }
            (Committed::Alternate, stored) => {
                tracing::warn!(chain = %key, "another pair was saved first; both are kept");
                if let Some(stored) = stored {
                    self.confirm(key, &stored).await;
                }
            }
            (_, stored) => {
                tracing::info!(chain = %key, "the installation changed; its new pair is revoked");
                self.revoke(key, renewed, stored.as_ref()).await;
            }
        }
        Step::Again
    }

    /// Revokes a pair that belongs to no installation. With token rotation `auth.revoke` ends one
    /// token and leaves the installation; a token that the new installation has too is left alone.
    async fn revoke(&self, key: &ChainKey, renewed: &Renewed, stored: Option<&StoredChain>) {
        let access_token = &renewed.grant.access_token;
        let is_stored =
            stored.is_some_and(|it| same(it.grant.access_token.expose(), access_token.expose()));
        if let Some(token) = &renewed.grant.refresh_token
            && let Err(error) = self.slack.auth_revoke_refresh_token(token).await
        {
            tracing::warn!(chain = %key, %error, "a refresh token could not be revoked");
        }
        if !is_stored && let Err(error) = self.slack.auth_revoke(access_token).await {
            tracing::warn!(chain = %key, %error, "an access token could not be revoked");
        }
    }
}

/// Whether a pair is one of this chain. What Slack does not say is not held against it.
fn fits(key: &ChainKey, app_id: &AppId, renewed: &Renewed) -> Result<(), &'static str> {
    if renewed.app_id != *app_id {
        return Err("other_app");
    }
    let is_same_user = match &key.credential {
        Credential::Bot => !renewed.is_user,
        Credential::User(user) => {
            renewed.is_user && renewed.user_id.as_ref().is_none_or(|id| id == user)
        }
    };
    if !is_same_user {
        return Err("other_token_type");
    }
    let is_same_place = match key.tenant.team() {
        Some(team) => renewed.team_id.as_ref().is_none_or(|id| id == team),
        None => {
            let named = renewed.enterprise_id.as_ref();
            named.is_none_or(|id| Some(id) == key.tenant.enterprise())
        }
    };
    is_same_place.then_some(()).ok_or("other_team")
}

/// A database that is restarted or fails over is back by then.
const KEEP_TRYING: Duration = Duration::from_secs(10 * 60);

const FIRST_PAUSE: Duration = Duration::from_millis(50);

const LONGEST_PAUSE: Duration = Duration::from_secs(5);
