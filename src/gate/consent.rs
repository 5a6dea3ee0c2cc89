//! The scopes that an installation lacks, and the link with which people grant them.

use http::HeaderMap;
use url::Url;

use super::Authorization;
use super::refusal::RefusalReason;
use crate::installation::Scopes;

/// Scopes that a handler needs and that the tenant has not granted.
///
/// A tenant grants the scopes that the app requested at the time of the installation. If the app
/// requests more later, each tenant must consent again.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct MissingScopes {
    /// The scopes that are missing.
    pub scopes: Scopes,
    /// The link with which a person grants them: the app's install path with `?team=`. `None` if the
    /// request names no tenant, or for a layer without `SlackLayer::with_install_url`.
    pub install_url: Option<Url>,
}

/// How the scopes of a token at Slack differ from the stored ones.
///
/// Slack adds the scopes of a later installation to a token. So another flow, or another process, may
/// have added scopes that are not stored here. If scopes are lost, the token was replaced at Slack.
/// In both cases, a new installation stores the current scopes.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ScopeDrift {
    /// The stored scopes that the token no longer has.
    pub lost: Scopes,
    /// The scopes that the token has, and that are not stored.
    pub gained: Scopes,
}

impl Authorization {
    /// Returns which of these scopes the bot lacks, and the link for a new consent. `None` if the
    /// bot has all of them.
    ///
    /// The link requests the app's configured scopes. So add new scopes there first, and on the
    /// app's page at Slack.
    ///
    /// ```
    /// use slack_installs::{Authorization, Scopes};
    ///
    /// async fn export(auth: &Authorization) -> String {
    ///     if let Some(missing) = auth.missing_scopes(&Scopes::from("files:write")) {
    ///         return match missing.install_url {
    ///             Some(link) => format!("Please allow the app to write files: {link}"),
    ///             None => "Please install the app again.".to_owned(),
    ///         };
    ///     }
    ///     "Here is your file.".to_owned()
    /// }
    /// ```
    #[must_use]
    pub fn missing_scopes(&self, needed: &Scopes) -> Option<MissingScopes> {
        let authorized = self.authorized.as_ref().ok();
        let bot = authorized.and_then(|authorized| authorized.bot());
        self.missing(bot.map(|bot| &bot.grant.scopes), needed)
    }

    /// Returns which of these scopes the acting user's own token lacks, and the link for a new
    /// consent. `None` if it has all of them.
    #[must_use]
    pub fn missing_user_scopes(&self, needed: &Scopes) -> Option<MissingScopes> {
        let authorized = self.authorized.as_ref().ok();
        let user = authorized.and_then(|authorized| authorized.user());
        self.missing(user.map(|user| &user.grant.scopes), needed)
    }

    /// Compares the stored scopes of the bot with those in this response of Slack's Web API to a call
    /// with the bot's token. Returns `None` if they are the same, if the response has no header
    /// `x-oauth-scopes`, or if there is no bot.
    ///
    /// ```
    /// use slack_installs::Authorization;
    ///
    /// // `headers` are those of the response to a call that your app made with the bot's token.
    /// fn check(auth: &Authorization, headers: &http::HeaderMap) {
    ///     if let Some(drift) = auth.scope_drift(headers) {
    ///         println!("lost {}, gained {}", drift.lost, drift.gained);
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn scope_drift(&self, response: &HeaderMap) -> Option<ScopeDrift> {
        let bot = self.authorized.as_ref().ok()?.bot()?;
        drift(&bot.grant.scopes, response)
    }

    /// Compares the stored scopes of the acting user's own token with those in this response to a
    /// call with that token, as [`scope_drift`](Self::scope_drift) does for the bot.
    #[must_use]
    pub fn user_scope_drift(&self, response: &HeaderMap) -> Option<ScopeDrift> {
        let user = self.authorized.as_ref().ok()?.user()?;
        drift(&user.grant.scopes, response)
    }

    fn missing(&self, granted: Option<&Scopes>, needed: &Scopes) -> Option<MissingScopes> {
        let scopes = match granted {
            Some(granted) => granted.missing(needed),
            None => needed.clone(),
        };
        if scopes.is_empty() {
            return None;
        }
        // An org-wide installation gets its new scopes from a new org-wide installation.
        let reason = RefusalReason::ReinstallNeeded;
        let install_url = self.desk.link(&self.request, reason);
        Some(MissingScopes {
            scopes,
            install_url,
        })
    }
}

fn drift(stored: &Scopes, response: &HeaderMap) -> Option<ScopeDrift> {
    let at_slack = response.get("x-oauth-scopes")?.to_str().ok()?;
    let at_slack = Scopes::from(at_slack);
    let drift = ScopeDrift {
        lost: at_slack.missing(stored),
        gained: stored.missing(&at_slack),
    };
    (!drift.lost.is_empty() || !drift.gained.is_empty()).then_some(drift)
}
