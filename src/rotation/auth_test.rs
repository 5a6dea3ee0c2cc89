//! Asks Slack (`auth.test`) whether an access token is still alive.
//!
//! If one refresh token bought several pairs, Slack may keep only one of them alive and does not
//! say which one. The saved pair may be a revoked one. Without this check, the app would find out
//! only when the pair expires, hours later.

use std::time::Duration;

use tokio::time::Instant;

use super::engine::Engine;
use super::protocol::{self, Asked, CALL, Freshness};
use crate::error_chain::error_chain;
use crate::store::{ChainKey, InstallId, StoredChain};

/// What Slack says about an access token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Alive,
    Ended,
    /// Slack did not respond, or its response says nothing about the token.
    Unknown,
}

impl Engine {
    async fn ask(&self, stored: &StoredChain) -> Verdict {
        let test = self.slack.auth_test(&stored.grant.access_token);
        match tokio::time::timeout(CALL, test).await {
            Ok(Ok(_)) => Verdict::Alive,
            Ok(Err(error)) if error.class().ends_token() => Verdict::Ended,
            _ => Verdict::Unknown,
        }
    }

    fn remember(&self, key: &ChainKey, stored: &StoredChain, is_alive: bool) {
        let until = Instant::now() + VERDICT;
        let generation = stored.chain.generation;
        self.recent.note_verdict(key, generation, is_alive, until);
    }

    /// Returns whether a suspect token is alive. Remembers the result for [`VERDICT`].
    ///
    /// Only a refusal by Slack counts against the token. If Slack does not respond, the token
    /// counts as alive.
    pub(super) async fn is_alive(&self, key: &ChainKey, stored: &StoredChain) -> bool {
        if let Some(is_alive) = self.recent.verdict(key, stored.chain.generation) {
            return is_alive;
        }
        let is_alive = self.ask(stored).await != Verdict::Ended;
        self.remember(key, stored, is_alive);
        is_alive
    }

    /// Asks Slack about a suspect token after a failed refresh, once for all waiting callers.
    pub(super) async fn ask_for_all(&self, key: &ChainKey) {
        if let Ok(Some(stored)) = self.read(key).await
            && stored.chain.is_suspect()
            && protocol::freshness(&stored.chain, self.clock.now()) < Freshness::Hard
        {
            self.is_alive(key, &stored).await;
        }
    }

    /// Returns whether the token of this generation has ended: it was replaced, or Slack refuses
    /// it. If Slack refuses it, records that. For a caller to whom Slack returned `token_revoked`.
    pub(super) async fn is_over(
        &self,
        key: &ChainKey,
        install: InstallId,
        generation: u64,
    ) -> bool {
        let Ok(stored) = self.read(key).await else {
            return false;
        };
        let is_current = |stored: &StoredChain| {
            stored.chain.install == install && stored.chain.generation == generation
        };
        let Some(stored) = stored.filter(is_current) else {
            return true;
        };
        // Limits the calls to Slack if your app reports every error as a revocation.
        if self.recent.verdict(key, generation) == Some(true) {
            return false;
        }
        match self.ask(&stored).await {
            Verdict::Alive => self.remember(key, &stored, true),
            Verdict::Ended => return self.end(key, &stored, false).await,
            Verdict::Unknown => {}
        }
        false
    }

    async fn end(&self, key: &ChainKey, stored: &StoredChain, was_unproven: bool) -> bool {
        let (install, generation) = (stored.chain.install, stored.chain.generation);
        tracing::warn!(
            tenant = %key.tenant, whose = %key.credential, generation,
            "Slack has revoked an access token before it expired; it is refreshed"
        );
        let ended = self.step(key, None, |chain| {
            let next = protocol::end(chain, install, generation, was_unproven, self.clock.now());
            (next, ())
        });
        if let Err(error) = ended.await {
            tracing::warn!(
                tenant = %key.tenant, whose = %key.credential, error = error_chain(&error),
                "the revocation of an access token could not be stored; the token may still \
                 be handed out"
            );
            return false;
        }
        true
    }

    /// Asks Slack about a pair that may be dead, and records what Slack says. If Slack does not
    /// respond, the pair stays unproven.
    pub(super) async fn prove(&self, key: &ChainKey, stored: &StoredChain) {
        let asked = Asked::of(&stored.chain);
        match self.ask(stored).await {
            Verdict::Alive => self.remember(key, stored, true),
            Verdict::Ended => {
                self.end(key, stored, true).await;
                return;
            }
            Verdict::Unknown => return,
        }
        let proven = self.patient_step(key, |chain| (protocol::prove(chain, asked), ()));
        if let Err(error) = proven.await {
            tracing::warn!(
                tenant = %key.tenant, whose = %key.credential, error = error_chain(&error),
                "Slack says that a pair is alive, which could not be stored; the pair stays suspect"
            );
        }
    }
}

/// How long a verdict is remembered. It can be short: Slack allows hundreds of `auth.test` calls a
/// minute.
const VERDICT: Duration = Duration::from_secs(30);
