//! The app's own configuration, with which a manifest is compared.

use url::Url;

use crate::installation::Scopes;
use crate::oauth::{InstallConfig, InstallProvider, RedirectUri};

/// What the app's own configuration says. What is `None` or empty is not compared.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// The redirect URLs of the app's flow.
    pub redirect_urls: Vec<RedirectUri>,
    /// The URL where the install flow starts. A direct install URL must be this one.
    pub install_url: Option<Url>,
    /// The bot scopes that the app requests.
    pub scopes: Option<Scopes>,
    /// The user scopes that the app requests.
    pub user_scopes: Option<Scopes>,
    /// Whether the app declared PKCE, by
    /// [`SlackAppBuilder::pkce_app`](crate::SlackAppBuilder::pkce_app).
    pub is_pkce_app: Option<bool>,
    /// Whether organisations are to install the app as a whole.
    pub is_org_wide: Option<bool>,
    /// Who gets the app.
    pub distribution: Distribution,
}

/// Who gets the app, and so which rules apply.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Distribution {
    /// Everybody, from Slack's Marketplace. The rules of its review apply.
    #[default]
    Marketplace,
    /// Other companies, by a link. The rules of the review do not apply.
    Unlisted,
}

impl Expected {
    /// Returns the redirect URLs, the install URL and the scopes of this flow
    /// ([`SlackApp::provider`](crate::SlackApp::provider)).
    #[must_use]
    pub fn of(provider: &InstallProvider) -> Self {
        Self {
            install_url: Some(provider.install_url()),
            ..Self::from(provider.config())
        }
    }
}

impl From<&InstallConfig> for Expected {
    fn from(config: &InstallConfig) -> Self {
        Self {
            redirect_urls: config.redirect_uris.clone(),
            scopes: Some(config.scopes.clone()),
            user_scopes: Some(config.user_scopes.clone()),
            ..Self::default()
        }
    }
}
