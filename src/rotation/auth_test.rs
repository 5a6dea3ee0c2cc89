//! Asks Slack (`auth.test`) whether an access token is still alive.
//!
//! If one refresh token bought several pairs, Slack may keep only one of them alive and does not
//! say which one. The saved pair may be a revoked one. Without this check, the app would find out
//! only when the pair expires, hours later.

use std::time::Duration;

use tokio::time::Instant;

use super::engine::Engine;
use super::protocol::{self, CALL, Freshness};
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

    /// Returns whether Slack says that this token is alive, and remembers it. `false` also if Slack
    /// does not respond.
    pub(super) async fn answers_for(&self, key: &ChainKey, stored: &StoredChain) -> bool {
        let is_alive = self.ask(stored).await == Verdict::Alive;
        if is_alive {
            self.remember(key, stored, true);
        }
        is_alive
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

    /// Asks Slack about a pair that was just saved and may be dead. Returns the chain that callers
    /// get, or `None` if Slack has ended the pair: the chain's other refresh tokens must be tried.
    ///
    /// If Slack does not respond, the pair stays suspect.
    pub(super) async fn proven(
        &self,
        key: &ChainKey,
        mut stored: StoredChain,
    ) -> Option<StoredChain> {
        match self.ask(&stored).await {
            Verdict::Alive => {
                self.remember(key, &stored, true);
                self.store_verdict(key, &stored, true).await;
                // This process's callers get the pair at once, although the row may still call it
                // suspect: a refresh that holds the lease may end it.
                stored.chain.unproven = None;
                Some(stored)
            }
            Verdict::Ended => {
                self.end(key, &stored, true).await;
                None
            }
            Verdict::Unknown => Some(stored),
        }
    }

    async fn end(&self, key: &ChainKey, stored: &StoredChain, is_new: bool) -> bool {
        let (install, generation) = (stored.chain.install, stored.chain.generation);
        tracing::warn!(
            chain = %key, generation,
            "Slack has revoked an access token before it expired; it is refreshed"
        );
        let ended = self.step(key, None, |chain| {
            let next = protocol::end(chain, install, generation, is_new, self.clock.now());
            (next, ())
        });
        if let Err(error) = ended.await {
            tracing::warn!(
                chain = %key, error = error_chain(&error),
                "the revocation of an access token could not be stored; the token may still \
                 be handed out"
            );
            return false;
        }
        true
    }

    /// Asks Slack whether the stored pair is alive, after another pair became an alternate.
    /// If Slack does not respond, the stored pair stays suspect.
    pub(super) async fn confirm(&self, key: &ChainKey, stored: &StoredChain) {
        let is_alive = match self.ask(stored).await {
            Verdict::Unknown => return,
            verdict => verdict == Verdict::Alive,
        };
        self.store_verdict(key, stored, is_alive).await;
    }

    async fn store_verdict(&self, key: &ChainKey, stored: &StoredChain, is_alive: bool) {
        // Slack may have said so before a call of the refresh that held the lease ended the pair.
        if is_alive && stored.chain.lease.is_some() {
            return;
        }
        let generation = stored.chain.generation;
        let confirmed = self.step(key, None, |chain| {
            (protocol::confirm(chain, generation, is_alive), ())
        });
        if let Err(error) = confirmed.await {
            tracing::warn!(
                chain = %key, error = error_chain(&error),
                "Slack's verdict on a suspect token could not be stored; the token stays suspect"
            );
        }
    }
}

/// How long a verdict is remembered. It can be short: Slack allows hundreds of `auth.test` calls a
/// minute.
const VERDICT: Duration = Duration::from_secs(30);
