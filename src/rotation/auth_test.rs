//! Asks Slack (`auth.test`) whether an access token still lives.
//!
//! Of the pairs that one refresh token bought Slack may let only one live, and not say which. The
//! one that was saved may be another; nobody would find out for the hours of its life.

use std::time::Duration;

use tokio::time::Instant;

use super::engine::Engine;
use super::protocol::{self, CALL, Freshness};
use crate::store::{ChainKey, InstallId, StoredChain};

/// What Slack says of an access token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Alive,
    Ended,
    /// Slack did not respond, or with something that says nothing about the token.
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

    /// Whether a token that is under suspicion is alive. Slack's word holds for a while, and only
    /// a refusal counts against the token: if Slack is away, nothing is known that was not before.
    pub(super) async fn is_alive(&self, key: &ChainKey, stored: &StoredChain) -> bool {
        if let Some(is_alive) = self.recent.verdict(key, stored.chain.generation) {
            return is_alive;
        }
        let is_alive = self.ask(stored).await != Verdict::Ended;
        self.remember(key, stored, is_alive);
        is_alive
    }

    /// After a refresh that failed: asks once for all callers, if the token is under suspicion.
    pub(super) async fn ask_for_all(&self, key: &ChainKey) {
        if let Ok(Some(stored)) = self.store.chain(key).await
            && stored.chain.is_suspect()
            && protocol::freshness(&stored.chain, self.clock.now()) < Freshness::Hard
        {
            self.is_alive(key, &stored).await;
        }
    }

    /// Whether the token of this generation is the chain's no more, or is recorded as over now
    /// because Slack refuses it. For a caller who was told so.
    pub(super) async fn is_over(
        &self,
        key: &ChainKey,
        install: InstallId,
        generation: u64,
    ) -> bool {
        let Ok(stored) = self.store.chain(key).await else {
            return false;
        };
        let is_current = |stored: &StoredChain| {
            stored.chain.install == install && stored.chain.generation == generation
        };
        let Some(stored) = stored.filter(is_current) else {
            return true;
        };
        // A host that calls every answer a revocation costs no more than this.
        if self.recent.verdict(key, generation) == Some(true) {
            return false;
        }
        self.end_if_refused(key, &stored, false).await
    }

    /// Asks Slack about this pair, and records it as over if Slack refuses it. Returns whether it
    /// is.
    pub(super) async fn end_if_refused(
        &self,
        key: &ChainKey,
        stored: &StoredChain,
        is_new: bool,
    ) -> bool {
        match self.ask(stored).await {
            Verdict::Alive => self.remember(key, stored, true),
            Verdict::Ended => return self.end(key, stored, is_new).await,
            Verdict::Unknown => {}
        }
        false
    }

    async fn end(&self, key: &ChainKey, stored: &StoredChain, is_new: bool) -> bool {
        let (install, generation) = (stored.chain.install, stored.chain.generation);
        tracing::warn!(chain = %key, generation, "Slack takes a token no more before its time");
        let ended = self.step(key, None, |chain| {
            let next = protocol::end(chain, install, generation, is_new, self.clock.now());
            (next, ())
        });
        if let Err(error) = ended.await {
            tracing::warn!(chain = %key, %error, "a token that is over stands as current");
            return false;
        }
        true
    }

    /// Asks Slack whether the pair that is stored beside an alternate is the one that lives.
    /// Without an answer it stays under suspicion.
    pub(super) async fn confirm(&self, key: &ChainKey, stored: &StoredChain) {
        let is_alive = match self.ask(stored).await {
            Verdict::Unknown => return,
            verdict => verdict == Verdict::Alive,
        };
        let generation = stored.chain.generation;
        let confirmed = self.step(key, None, |chain| {
            (protocol::confirm(chain, generation, is_alive), ())
        });
        if let Err(error) = confirmed.await {
            tracing::warn!(chain = %key, %error, "a suspicion could not be ended");
        }
    }
}

/// Slack's `auth.test` is for hundreds of calls a minute.
const VERDICT: Duration = Duration::from_secs(30);
