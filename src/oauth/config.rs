//! What the app asks for, and what one flow asks for.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use super::error::Error;
use crate::installation::{Installation, Scopes};
use crate::slack::{ClientCredentials, Issued, is_loopback};
use crate::tenant::{AppId, TeamId};

/// What the app asks for, and where people come back to.
#[derive(Debug)]
pub struct InstallConfig {
    /// The app's client id and secret.
    pub credentials: ClientCredentials,
    /// Where Slack may send people back to, as configured at Slack. The first one is the default.
    pub redirect_uris: Vec<RedirectUri>,
    /// The path where a person begins, as their browser sees it: `/slack/install` by default.
    pub install_path: String,
    /// Scopes for the bot. Empty for an app that acts only as its users.
    pub scopes: Scopes,
    /// Scopes for the installing user's own token.
    pub user_scopes: Scopes,
    /// The app's id, if known. Tokens for any other app are then refused.
    pub app_id: Option<AppId>,
    /// How long a person may take at Slack, 10 minutes at most (as Slack's own code lives).
    pub state_lifetime: Duration,
}

impl InstallConfig {
    /// A configuration with one redirect URL, and ten minutes for a person at Slack.
    #[must_use]
    pub fn new(credentials: ClientCredentials, redirect_uri: RedirectUri, scopes: Scopes) -> Self {
        Self {
            credentials,
            redirect_uris: vec![redirect_uri],
            install_path: INSTALL_PATH.into(),
            scopes,
            user_scopes: Scopes::default(),
            app_id: None,
            state_lifetime: MAX_STATE_LIFETIME,
        }
    }

    /// Refuses what cannot work.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.redirect_uris.is_empty() {
            return Err(ConfigError::NoRedirectUri);
        }
        if !is_path(&self.install_path) {
            return Err(ConfigError::InstallPathForm);
        }
        if self
            .redirect_uris
            .iter()
            .any(|uri| uri.path() == self.install_path)
        {
            return Err(ConfigError::InstallPath);
        }
        if self.scopes.is_empty() && self.user_scopes.is_empty() {
            return Err(ConfigError::NoScopes);
        }
        if self.state_lifetime > MAX_STATE_LIFETIME || self.state_lifetime.is_zero() {
            Err(ConfigError::StateLifetime)
        } else {
            Ok(())
        }
    }
}

/// Whether this is a path as a browser sends it, and as a link of a page leads to it.
fn is_path(path: &str) -> bool {
    // A second slash would make a link to another host.
    let is_local = !path.starts_with("//");
    is_local && Url::parse(&format!("https://localhost{path}")).is_ok_and(|url| url.path() == path)
}

/// A URL that Slack may send people back to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RedirectUri {
    /// As it was given: Slack compares the text, and a parser would add a slash here and there.
    text: Box<str>,
    url: Url,
}

impl RedirectUri {
    /// Checks a redirect URL.
    ///
    /// # Errors
    ///
    /// [`ConfigError::RedirectUri`] unless it is `https` without a fragment (Slack's rule), or
    /// `http` on a loopback host, for development.
    pub fn new(text: &str) -> Result<Self, ConfigError> {
        let url = Url::parse(text).map_err(|_| ConfigError::RedirectUri)?;
        let secure = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
        let plain =
            url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
        if secure && plain && url.host().is_some() {
            Ok(Self {
                text: text.into(),
                url,
            })
        } else {
            Err(ConfigError::RedirectUri)
        }
    }

    /// The URL, as Slack is told it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The URL's path: where the app's router has the callback.
    #[must_use]
    pub fn path(&self) -> &str {
        self.url.path()
    }

    pub(super) fn is_plain_loopback(&self) -> bool {
        self.url.scheme() == "http"
    }

    /// Whether this URL and the host of a request both name this machine, and by different
    /// names: a browser keeps their cookies apart.
    pub(super) fn is_other_loopback(&self, host: &str) -> bool {
        Url::parse(&format!("http://{host}/")).is_ok_and(|asked| {
            is_loopback(&asked) && is_loopback(&self.url) && asked.host() != self.url.host()
        })
    }

    /// `host` or `host:port`, as a browser puts it into the `Host` header.
    pub(super) fn authority(&self) -> &str {
        self.url.authority()
    }
}

/// What one flow asks for, where it differs from the configuration.
#[derive(Clone, Default)]
pub struct InstallOptions {
    /// Which of the configured redirect URLs; the first one if `None`.
    pub redirect_uri: Option<RedirectUri>,
    /// Other bot scopes than the configured ones.
    pub scopes: Option<Scopes>,
    /// Other user scopes than the configured ones.
    pub user_scopes: Option<Scopes>,
    /// The workspace that it is meant for. Slack takes it as a hint and may ignore it; an
    /// installation anywhere else is then refused.
    pub team: Option<TeamId>,
    /// Anything of your app's: kept sealed in the state's row, then as
    /// [`Installation::metadata`]. Never in a URL. 4 KiB at most.
    ///
    /// A later flow without metadata leaves it unchanged. A flow that begins at Slack, or at the
    /// install path, has none. It says what your route passed, not who the person is.
    pub metadata: Option<String>,
}

impl fmt::Debug for InstallOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstallOptions")
            .field("redirect_uri", &self.redirect_uri)
            .field("scopes", &self.scopes)
            .field("user_scopes", &self.user_scopes)
            .field("team", &self.team)
            .field("metadata", &self.metadata.as_ref().map(|_| "[redacted]"))
            .finish()
    }
}

/// Which scopes a flow asked for.
#[derive(Clone, Debug, Default)]
pub struct Requested {
    /// For the bot.
    pub scopes: Scopes,
    /// For the user's own token.
    pub user_scopes: Scopes,
}

/// Why a configuration cannot work.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No redirect URL.
    #[error("no redirect URL is configured: Slack has nowhere to send people back to")]
    NoRedirectUri,
    /// A redirect URL's path is the install path itself.
    #[error("a redirect URL has the install path, where the flow begins: change one of them")]
    InstallPath,
    /// The install path is not a path.
    #[error(
        "the install path must begin with one `/`, be percent-encoded, and have no query: such as \
         /slack/install"
    )]
    InstallPathForm,
    /// A URL that Slack does not send people back to.
    #[error(
        "not a redirect URL: it must be https without a fragment, or http on localhost for \
         development"
    )]
    RedirectUri,
    /// Neither bot scopes nor user scopes.
    #[error("no scopes are configured: give bot scopes, user scopes, or both")]
    NoScopes,
    /// Zero, or over ten minutes.
    #[error("the state's lifetime must be above zero and at most 10 minutes")]
    StateLifetime,
}

/// What a flow asked for, as its state's row keeps it. Nothing of it is in a URL.
#[derive(Deserialize, Serialize)]
pub(super) struct Pending {
    pub(super) redirect_uri: String,
    pub(super) scopes: String,
    pub(super) user_scopes: String,
    pub(super) team: Option<TeamId>,
    metadata: Option<String>,
}

impl Pending {
    /// What this flow asks for, by its options and the configuration.
    pub(super) fn new(config: &InstallConfig, options: InstallOptions) -> Result<Self, Error> {
        let redirect_uri = match options.redirect_uri {
            Some(uri) if config.redirect_uris.contains(&uri) => uri,
            Some(_) => {
                return Err(Error::Options("the redirect URL is not a configured one"));
            }
            None => config.redirect_uris[0].clone(),
        };
        if options
            .metadata
            .as_ref()
            .is_some_and(|metadata| metadata.len() > MAX_METADATA)
        {
            return Err(Error::Options("the metadata has more than 4 KiB"));
        }
        let scopes = options.scopes.unwrap_or_else(|| config.scopes.clone());
        let user_scopes = options
            .user_scopes
            .unwrap_or_else(|| config.user_scopes.clone());
        if scopes.is_empty() && user_scopes.is_empty() {
            return Err(Error::Options("no scopes are asked for"));
        }
        Ok(Self {
            redirect_uri: redirect_uri.as_str().into(),
            scopes: scopes.to_string(),
            user_scopes: user_scopes.to_string(),
            team: options.team,
            metadata: options.metadata,
        })
    }

    pub(super) fn to_payload(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(serde_json::to_vec(self).expect("plain fields always serialise"))
    }

    pub(super) fn from_payload(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }

    pub(super) fn requested(&self) -> Requested {
        Requested {
            scopes: Scopes::from(self.scopes.as_str()),
            user_scopes: Scopes::from(self.user_scopes.as_str()),
        }
    }

    pub(super) fn into_installation(self, issued: Issued) -> Installation {
        let mut installation = Installation::new(issued.app_id, issued.home, issued.at);
        installation.bot = issued.bot;
        installation.user = issued.user;
        installation.installed_by = issued.authed_user;
        installation.incoming_webhooks = issued.incoming_webhook.into_iter().collect();
        installation.metadata = self.metadata;
        installation
    }
}

/// Slack's code lives as long.
pub(super) const MAX_STATE_LIFETIME: Duration = Duration::from_secs(600);

/// Enough for an id and a few words of the host's; a row stays small.
const MAX_METADATA: usize = 4096;

/// Where a person begins by default: link *Add to Slack* there.
pub(super) const INSTALL_PATH: &str = "/slack/install";
