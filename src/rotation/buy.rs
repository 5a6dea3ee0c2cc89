//! Buys a pair: calls Slack, and saves the pair that Slack issues. Until the pair is saved, this
//! process has the only copy of it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::Error;
use super::lease::HeldLease;
use super::protocol::{self, CALL, Committed, Issued, Response};
use super::step::Step;
use super::trigger::Trigger;
use crate::error_chain::error_chain;
use crate::flight::fly;
use crate::secret::same;
use crate::slack::{Error as SlackError, Renewed, TransportError};
use crate::store::{Credential, Mark, StoredChain};

impl HeldLease {
    /// Makes this call, and saves the pair that Slack returns. `by` is the refresh token that the
    /// call sends.
    ///
    /// # Errors
    ///
    /// The outer error is Slack's: the call returned no pair. The inner error is a failed save, or
    /// a pair that belongs to another chain.
    pub(super) async fn buy<F>(
        &self,
        call: F,
        by: Option<Mark>,
        response: Response,
    ) -> Result<Result<Step, Error>, SlackError>
    where
        F: Future<Output = Result<Renewed, SlackError>> + Send + 'static,
    {
        let renewed = self.in_time(call, by).await?;
        self.engine.breaker.reset();
        Ok(match self.fits(&renewed) {
            Ok(()) => self.save(&renewed, by, response).await,
            Err(what) => self.mismatched(what).await,
        })
    }

    /// Waits up to [`CALL`] for the response to the call. If the response arrives later, a separate
    /// task still saves its pair, or keeps it as an alternate.
    async fn in_time<F>(&self, call: F, by: Option<Mark>) -> Result<Renewed, SlackError>
    where
        F: Future<Output = Result<Renewed, SlackError>> + Send + 'static,
    {
        let mut call = tokio::spawn(call);
        let lost = |cause| SlackError::Transport(TransportError::Lost(cause));
        match tokio::time::timeout(CALL, &mut call).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(interrupted)) => Err(lost(interrupted.into())),
            Err(late) => {
                let mut lease = self.clone();
                lease.is_ahead = false;
                let late_task = self.engine.flights.late_task();
                drop(tokio::spawn(fly(async move {
                    let _late_task = late_task;
                    let Ok(Ok(renewed)) = call.await else { return };
                    if lease.fits(&renewed).is_err() {
                        return;
                    }
                    match lease.save(&renewed, by, Response::Late).await {
                        Ok(Step::Done(_)) => {}
                        Ok(Step::Again | Step::Unproven) => lease.look_again().await,
                        Err(error) => tracing::error!(
                            tenant = %lease.key.tenant, whose = %lease.key.credential, error = error_chain(&error),
                            "Slack's response was late, and its pair could not be saved: it is lost"
                        ),
                    }
                })));
                Err(lost(late.into()))
            }
        }
    }

    /// Refreshes the chain after a late pair changed it, although no caller waits: Slack may accept
    /// the chain's refresh token for some seconds only.
    async fn look_again(&self) {
        // A refresh that is running may have read the chain before it changed.
        for _ in 0..2 {
            if let Ok(running) = self.engine.refresh(&self.key, Trigger::Use) {
                drop(running.outcome(Instant::now() + LOOK).await);
            }
        }
    }

    /// Checks that a pair belongs to this chain. A user, team or enterprise id that is missing in
    /// Slack's response passes the check.
    fn fits(&self, renewed: &Renewed) -> Result<(), &'static str> {
        let tenant = &self.key.tenant;
        let is_same_user = match &self.key.credential {
            Credential::Bot => !renewed.is_user,
            Credential::User(user) => {
                renewed.is_user && renewed.user_id.as_ref().is_none_or(|id| id == user)
            }
        };
        let is_same_place = match (tenant.team(), &renewed.team_id, &renewed.enterprise_id) {
            (Some(team), Some(id), _) => id == team,
            (None, _, Some(id)) => Some(id) == tenant.enterprise(),
            _ => true,
        };
        if renewed.app_id != self.app_id {
            Err("other_app")
        } else if !is_same_user {
            Err("other_token_type")
        } else if !is_same_place {
            Err("other_team")
        } else {
            Ok(())
        }
    }

    /// Gives the lease back after Slack returned a pair of another chain, and logs an error. The
    /// pair is not stored. The spent refresh token is tried again while Slack still accepts it.
    async fn mismatched(&self, what: &'static str) -> Result<Step, Error> {
        tracing::error!(
            tenant = %self.key.tenant, whose = %self.key.credential, what,
            "Slack returned a token of another app, team or type; it is not stored"
        );
        self.give_back(0, false, None, what).await
    }

    /// Tries for up to [`KEEP_TRYING`] to save the pair, or to keep it as an alternate. Revokes the
    /// pair if its installation no longer exists.
    async fn save(
        &self,
        renewed: &Renewed,
        by: Option<Mark>,
        response: Response,
    ) -> Result<Step, Error> {
        let (engine, key) = (&self.engine, &self.key);
        let refresh_token = renewed.grant.refresh_token.as_ref();
        let issued = Issued {
            refresh: Mark::of(refresh_token.expect("a valid response has a refresh token")),
            by,
            response,
            issued_at: renewed.at,
            expires_at: renewed.grant.expires_at,
            is_ahead: self.is_ahead,
        };
        let give_up = Instant::now() + KEEP_TRYING;
        let mut pause = FIRST_PAUSE;
        loop {
            let saved = engine.step(key, Some(&renewed.grant), |chain| {
                protocol::commit(chain, &self.ticket, &issued, engine.clock.now())
            });
            let error = match saved.await {
                Ok((stored, committed)) => {
                    return Ok(self.saved(renewed, stored, committed).await);
                }
                Err(error) => error,
            };
            if Instant::now() >= give_up {
                tracing::error!(
                    tenant = %key.tenant, whose = %key.credential, error = error_chain(&error),
                    "a pair from Slack could not be saved within 10 minutes: it is lost"
                );
                return Err(error.into());
            }
            tracing::warn!(
                tenant = %key.tenant, whose = %key.credential, error = error_chain(&error),
                "a pair from Slack could not be saved; the save is tried again"
            );
            tokio::time::sleep(engine.jitter.around(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn saved(
        &self,
        renewed: &Renewed,
        stored: Option<StoredChain>,
        committed: Committed,
    ) -> Step {
        let key = &self.key;
        match (committed, stored) {
            (Committed::Saved, Some(stored)) => {
                tracing::info!(tenant = %key.tenant, whose = %key.credential, generation = stored.chain.generation, "refreshed");
                return if stored.chain.is_unproven {
                    Step::Unproven
                } else {
                    Step::Done(Arc::new(stored))
                };
            }
            (Committed::Alternate, _) => {
                tracing::warn!(
                    tenant = %key.tenant, whose = %key.credential,
                    "another pair was saved first; this one is kept as an alternate"
                );
            }
            (_, stored) => {
                tracing::info!(
                    tenant = %key.tenant, whose = %key.credential,
                    "the installation was replaced or deleted; its new pair is revoked"
                );
                self.revoke(renewed, stored.as_ref()).await;
            }
        }
        Step::Again
    }

    /// Revokes a pair whose installation no longer exists.
    ///
    /// With token rotation, `auth.revoke` revokes one token and keeps the app installed. Keeps the
    /// access token if the new installation has the same one.
    async fn revoke(&self, renewed: &Renewed, stored: Option<&StoredChain>) {
        let (slack, key) = (&self.engine.slack, &self.key);
        let token = &renewed.grant.access_token;
        let is_stored =
            stored.is_some_and(|it| same(it.grant.access_token.expose(), token.expose()));
        if let Some(token) = &renewed.grant.refresh_token
            && let Err(error) = slack.auth_revoke_refresh_token(token).await
        {
            tracing::warn!(tenant = %key.tenant, whose = %key.credential, error = error_chain(&error), "a refresh token could not be revoked");
        }
        if !is_stored && let Err(error) = slack.auth_revoke(token).await {
            tracing::warn!(tenant = %key.tenant, whose = %key.credential, error = error_chain(&error), "an access token could not be revoked");
        }
    }
}

/// How long a save is tried. A database normally restarts or fails over within this time.
const KEEP_TRYING: Duration = Duration::from_secs(10 * 60);

/// Longer than a refresh takes.
const LOOK: Duration = Duration::from_secs(60);

const FIRST_PAUSE: Duration = Duration::from_millis(50);

const LONGEST_PAUSE: Duration = Duration::from_secs(5);
