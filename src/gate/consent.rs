//! The scopes that an installation lacks, and the link with which people grant them.

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
