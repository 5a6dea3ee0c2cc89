//! Whether Slack still takes a token that it has not said the end of.
//!
//! Of the pairs that one refresh token bought Slack may let only one live, and not say which. The
//! one that was saved may be another; nobody would find out for the hours of its life.

use std::sync::Arc;

use tokio::time::Instant;

use super::engine::{Engine, VERDICT};
use super::protocol::{self, CALL};
use super::refresh::Step;
use crate::slack::Error as SlackError;
use crate::store::{Chain, ChainKey, InstallId, StoredChain};

impl Engine {
    /// Asks Slack for a pair that was just saved. If it is refused, the chain is to be refreshed.
    pub(super) async fn proven(&self, key: &ChainKey, stored: Arc<StoredChain>) -> Step {
        match self.ask_and_end(key, &stored, true).await {
            true => Step::Again,
            false => Step::Done(stored),
        }
    }

    /// Whether the token of this generation is the chain's no more, or is noted as over now because
    /// Slack refuses it. For a caller who was told so.
    pub(super) async fn is_over(
        &self,
        key: &ChainKey,
        install: InstallId,
        generation: u64,
    ) -> bool {
        let Ok(stored) = self.store.chain(key).await else {
            return false;
        };
        let stands = |stored: &StoredChain| {
            stored.chain.install == install && stored.chain.generation == generation
        };
        let Some(stored) = stored.filter(stands) else {
            return true;
        };
        // A host that calls every answer a revocation costs no more than this.
        if self.memo.verdict(key, generation) == Some(true) {
            return false;
        }
        self.ask_and_end(key, &stored, false).await
    }

    async fn ask_and_end(&self, key: &ChainKey, stored: &StoredChain, is_new: bool) -> bool {
        let Chain {
            install,
            generation,
            ..
        } = stored.chain;
        let test = self.slack.auth_test(&stored.grant.access_token);
        match tokio::time::timeout(CALL, test).await {
            Ok(Err(error)) if is_ended(&error) => {}
            answer => {
                if let Ok(Ok(_)) = answer {
                    let until = Instant::now() + VERDICT;
                    self.memo.judge(key, generation, true, until);
                }
                return false;
            }
        }
        tracing::warn!(chain = %key, generation, "Slack takes a token no more before its time");
        let mut decide = |chain: Option<&Chain>| {
            let next = protocol::end(chain, install, generation, is_new, self.clock.now());
            next.map(|next| self.scheduled(next))
        };
        if let Err(error) = self.store.update(key, None, &mut decide).await {
            tracing::warn!(chain = %key, %error, "a token that is over stands as current");
            return false;
        }
        true
    }
}

/// Whether Slack says that the token lives no more. Not by `invalid_auth`, which is also what an
/// address gets that is not on the app's allow-list.
pub(super) fn is_ended(error: &SlackError) -> bool {
    error.class().ends_token()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::installation::Scopes;
    use crate::slack::{ErrorCode, TransportError};

    #[test]
    fn only_a_refusal_of_the_token_itself_says_that_it_is_over() {
        let api = |code: &str| SlackError::Api {
            code: ErrorCode::new(code),
            needed: Scopes::default(),
        };
        for code in ["account_inactive", "token_expired", "token_revoked"] {
            assert!(is_ended(&api(code)), "{code}");
        }
        for code in [
            "accesslimited",
            "ekm_access_denied",
            "fatal_error",
            "invalid_auth",
            "invalid_token",
            "missing_scope",
            "not_authed",
            "org_login_required",
            "service_unavailable",
            "some_future_error",
        ] {
            assert!(!is_ended(&api(code)), "{code}");
        }
        let lost = TransportError::Lost("reset".into());
        for error in [
            SlackError::Transport(lost),
            SlackError::Http { status: 503 },
            SlackError::RateLimited { retry_after: None },
        ] {
            assert!(!is_ended(&error), "{error:?}");
        }
    }
}
