//! Handles `tokens_revoked`: the tokens of some users, or of the bot, were revoked.
//!
//! The event lists users, not tokens. Slack also sends it for tokens that were replaced: when a
//! user authorises again, or when this crate revokes a token. So the event's time does not matter:
//! each stored token is checked with `auth.test`, and only a dead token is deleted.

use std::time::SystemTime;

use serde::Deserialize;

use super::liveness::age;
use super::{Handled, Lifecycle, LifecycleError};
use crate::installation::{Bot, Grant, StoredInstallation};
use crate::request::LifecycleEvent;
use crate::store::{ChainKey, Credential, Subject};
use crate::tenant::{InstallationKey, UserId};

/// The fields of the event that are read: ids of users, not tokens.
#[derive(Deserialize)]
pub(super) struct TokensRevoked {
    event: Event,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    tokens: RevokedTokens,
}

#[derive(Default, Deserialize)]
struct RevokedTokens {
    /// Users whose own tokens are revoked.
    #[serde(default)]
    oauth: Vec<String>,
    /// Bot users whose tokens are revoked.
    #[serde(default)]
    bot: Vec<String>,
}

impl Lifecycle {
    pub(super) async fn tokens_revoked(
        &self,
        key: &InstallationKey,
        at: SystemTime,
        revoked: &TokensRevoked,
    ) -> Result<Handled, LifecycleError> {
        let RevokedTokens { oauth, bot } = &revoked.event.tokens;
        let mut ended = Vec::new();
        let mut failed = None;
        // An error does not stop the others; Slack repeats the event for the failed ones.
        let mut note = |credential, outcome| match outcome {
            Ok(true) => ended.push(Subject::Authorization(credential)),
            Ok(false) => {}
            Err(error) => failed = failed.take().or(Some(error)),
        };
        for user in oauth.iter().filter_map(|id| UserId::new(id.as_str()).ok()) {
            let outcome = self.user_token_revoked(key, at, &user).await;
            note(Credential::User(user), outcome);
        }
        if !bot.is_empty() {
            let outcome = self.bot_token_revoked(key, at, bot).await;
            note(Credential::Bot, outcome);
        }
        // The hooks come last, so that a slow one keeps no dead token alive.
        self.tell(key, &ended).await;
        match failed {
            Some(error) => Err(error),
            None if ended.is_empty() => Ok(Handled::Ignored),
            None => Ok(Handled::Revoked),
        }
    }

    async fn user_token_revoked(
        &self,
        key: &InstallationKey,
        at: SystemTime,
        user: &UserId,
    ) -> Result<bool, LifecycleError> {
        let Some(installation) = self.installations.fetch(key, Some(user)).await? else {
            return Ok(false);
        };
        let grant = installation.user.as_ref().map(|user| &user.grant);
        let whose = Credential::User(user.clone());
        self.delete_if_dead(&installation, grant, whose, at).await
    }

    async fn bot_token_revoked(
        &self,
        key: &InstallationKey,
        at: SystemTime,
        revoked: &[String],
    ) -> Result<bool, LifecycleError> {
        let Some(installation) = self.installations.fetch(key, None).await? else {
            return Ok(false);
        };
        // Bots of other apps are ignored. `oauth` alone never deletes the bot's token.
        let is_listed = |bot: &&Bot| revoked.iter().any(|id| id == bot.user_id.as_str());
        let bot = installation.bot.as_ref().filter(is_listed);
        let grant = bot.map(|bot| &bot.grant);
        self.delete_if_dead(&installation, grant, Credential::Bot, at)
            .await
    }

    async fn delete_if_dead(
        &self,
        installation: &StoredInstallation,
        grant: Option<&Grant>,
        credential: Credential,
        at: SystemTime,
    ) -> Result<bool, LifecycleError> {
        let Some(Grant { access_token, .. }) = grant else {
            return Ok(false);
        };
        let age = age(installation.installed_at, at);
        if !self.is_dead(access_token, age).await? {
            return Ok(false);
        }
        let tenant = installation.key();
        let chain = ChainKey { credential, tenant };
        let only = installation.revision;
        Ok(self
            .end_authorization(&chain, only, access_token, REASON)
            .await?)
    }
}

/// The reason of the notice: the event's type.
const REASON: &str = LifecycleEvent::TokensRevoked.name();
