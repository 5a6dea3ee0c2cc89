//! The configuration of the app's install flow, and the options of one flow.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use url::Url;

use crate::installation::{MetadataError, Scopes, metadata_text};
use crate::slack::{ClientCredentials, is_loopback};
use crate::tenant::{AppId, EnterpriseId, TeamId};

/// The scopes that the app requests, and the redirect URLs of its flow.
#[derive(Debug)]
pub struct InstallConfig {
    /// The app's client id and secret.
    pub credentials: ClientCredentials,
    /// The redirect URLs, as configured at Slack. The first one is the default. They are all
    /// `https`, or all `http` on this machine.
    pub redirect_uris: Vec<RedirectUri>,
    /// The path where the flow starts, as the browser sees it: `/slack/install` by default.
    pub install_path: String,
    /// The scopes for the bot. Empty for an app that uses only its users' tokens.
    pub scopes: Scopes,
    /// The scopes for the installing user's own token.
    pub user_scopes: Scopes,
    /// The app's id, if known. Tokens for any other app are then refused.
    pub app_id: Option<AppId>,
    /// How long a person may take at Slack: at most 10 minutes, the lifetime of Slack's code.
    pub state_lifetime: Duration,
}

impl InstallConfig {
    /// Creates a configuration with one redirect URL. A person has ten minutes at Slack.
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

    /// Returns the scopes that a flow requests if its options do not replace them.
    pub(super) fn requested(&self) -> Requested {
        Requested {
            scopes: self.scopes.clone(),
            user_scopes: self.user_scopes.clone(),
        }
    }

    /// Returns an error if the configuration is invalid.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.redirect_uris.is_empty() {
            return Err(ConfigError::NoRedirectUri);
        }
        let mut uris = self.redirect_uris.iter();
        let is_first_plain = self.redirect_uris[0].is_plain_loopback();
        if uris.any(|uri| uri.is_plain_loopback() != is_first_plain) {
            return Err(ConfigError::MixedRedirectUris);
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

/// Returns whether this is a path that a browser sends unchanged, and that a page can link to.
fn is_path(path: &str) -> bool {
    // With a second slash, the link would lead to another host.
    let is_local = !path.starts_with("//");
    is_local && Url::parse(&format!("https://localhost{path}")).is_ok_and(|url| url.path() == path)
}

/// A URL to which Slack may send people back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RedirectUri {
    /// The original text. Slack compares the text, and a parser would sometimes add a slash.
    text: Box<str>,
    url: Url,
}

impl RedirectUri {
    /// Parses a redirect URL.
    ///
    /// # Errors
    ///
    /// [`ConfigError::RedirectUri`] unless the URL is `https` without a fragment (Slack's rule), or
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

    /// Returns the URL as it is sent to Slack.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the URL's path. The app's router mounts the callback there.
    #[must_use]
    pub fn path(&self) -> &str {
        self.url.path()
    }

    /// Returns the URL of this path at the same host.
    pub(super) fn at(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(path);
        url.set_query(None);
        url
    }

    pub(super) fn is_plain_loopback(&self) -> bool {
        self.url.scheme() == "http"
    }

    /// Returns whether this URL and the host of a request name the same machine with different
    /// loopback names. A browser does not share cookies between them.
    pub(super) fn is_other_loopback(&self, host: &str) -> bool {
        Url::parse(&format!("http://{host}/")).is_ok_and(|asked| {
            is_loopback(&asked) && is_loopback(&self.url) && asked.host() != self.url.host()
        })
    }

    /// Returns `host` or `host:port`, as a browser sends it in the `Host` header.
    pub(super) fn authority(&self) -> &str {
        self.url.authority()
    }
}

/// The options of one flow, where they differ from the configuration.
#[derive(Clone, Default)]
pub struct InstallOptions {
    /// One of the configured redirect URLs; the first one if `None`.
    pub redirect_uri: Option<RedirectUri>,
    /// Bot scopes that replace the configured ones.
    pub scopes: Option<Scopes>,
    /// User scopes that replace the configured ones.
    pub user_scopes: Option<Scopes>,
    /// The workspace in which to install the app. Slack treats it as a hint and may ignore it. An
    /// installation in another workspace is then refused.
    ///
    /// An org-wide installation is accepted if the workspace is known to belong to the
    /// organisation: from an earlier installation, from `users.info` (scope `users:read`), or from
    /// `auth.teams.list`.
    pub team: Option<TeamId>,
    /// The organisation in which to install the app, as a hint to Slack. An installation elsewhere
    /// is refused. One in a workspace of the organisation is accepted.
    pub enterprise: Option<EnterpriseId>,
    /// The session of your app in which the flow starts: any text that names the signed-in user or
    /// their session, such as its id. The callback of another session, or of none, is refused
    /// before the state and the code are used. So an installation never reaches the account of
    /// another person who has signed in with the same browser.
    ///
    /// Pass the same value as [`Callback::session`](super::Callback::session), or return it from
    /// [`InstallHooks::session`](super::InstallHooks::session). Only a hash of it leaves the
    /// process, sealed in the flow's cookie.
    pub session: Option<String>,
    /// Data of your app, at most 2 KiB. The browser carries it in the flow's cookie, sealed. Later it
    /// is stored with the person who completes the flow, as [`Installation::user_metadata`]. If the
    /// flow installs the bot, it is also the tenant's, [`Installation::metadata`]. It never appears
    /// in a URL.
    ///
    /// For more data, pass the id of a record of your app. A cookie has at most 4,000 bytes, and the
    /// flow's scopes need some of them. Behind nginx, a cookie of more than about 2,500 bytes needs
    /// `proxy_buffer_size 8k`.
    ///
    /// A later flow without metadata leaves both unchanged. A flow that starts at Slack, or at the
    /// install path, has the metadata of
    /// [`InstallHooks::starting`](super::InstallHooks::starting). It says what your app passed, not
    /// who the person is.
    ///
    /// [`Installation::user_metadata`]: crate::Installation::user_metadata
    /// [`Installation::metadata`]: crate::Installation::metadata
    pub metadata: Option<String>,
    /// The `Cookie` headers of the request that starts the flow, joined by `; `. The cookies of
    /// several flows may be too large for your server. The cookies of the oldest flows are then
    /// deleted, so that at most 7 KiB remain. The library sets this at the install path.
    pub cookies: Option<String>,
}

impl InstallOptions {
    /// Sets the metadata to the JSON form of this value. Read it with
    /// [`Installation::metadata_as`](crate::Installation::metadata_as).
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    /// use slack_installs::{Installation, InstallOptions, MetadataError};
    ///
    /// #[derive(Deserialize, Serialize)]
    /// struct Customer {
    ///     account: u64,
    ///     plan: String,
    /// }
    ///
    /// fn options(customer: &Customer) -> Result<InstallOptions, MetadataError> {
    ///     InstallOptions::default().with_metadata(customer)
    /// }
    ///
    /// fn customer(installation: &Installation) -> Result<Option<Customer>, MetadataError> {
    ///     installation.metadata_as()
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`MetadataError::Write`] if the value has no JSON form. The start of the flow refuses a text
    /// of more than 2 KiB.
    pub fn with_metadata<T>(mut self, value: &T) -> Result<Self, MetadataError>
    where
        T: Serialize + ?Sized,
    {
        self.metadata = Some(metadata_text(value)?);
        Ok(self)
    }
}

impl fmt::Debug for InstallOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstallOptions")
            .field("redirect_uri", &self.redirect_uri)
            .field("scopes", &self.scopes)
            .field("user_scopes", &self.user_scopes)
            .field("team", &self.team)
            .field("enterprise", &self.enterprise)
            .field("session", &self.session.as_ref().map(|_| "[redacted]"))
            .field("metadata", &self.metadata.as_ref().map(|_| "[redacted]"))
            .field("cookies", &self.cookies.as_ref().map(|_| "[redacted]"))
            .finish()
    }
}

/// The scopes that a flow requested.
#[derive(Clone, Debug, Default)]
pub struct Requested {
    /// The scopes for the bot.
    pub scopes: Scopes,
    /// The scopes for the user's own token.
    pub user_scopes: Scopes,
}

/// Why a configuration is invalid.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Some redirect URLs are `https`, and others are `http`. A flow over `http` has a cookie that
    /// other sites can set. A proxy may hide over which of them a callback arrived, so that cookie
    /// would also be accepted over `https`.
    #[error(
        "a redirect URL on http is configured next to one on https: for development, start the app \
         with only the URL on http, or use https on this machine too"
    )]
    MixedRedirectUris,
    /// No redirect URL is configured.
    #[error("no redirect URL is configured: add the callback URL, as configured at Slack")]
    NoRedirectUri,
    /// A redirect URL has the same path as the install path.
    #[error(
        "a redirect URL has the same path as the install path, where the flow starts: change one \
         of them"
    )]
    InstallPath,
    /// The install path does not have the form of a path.
    #[error(
        "the install path must begin with one `/`, be percent-encoded, and have no query: such as \
         /slack/install"
    )]
    InstallPathForm,
    /// Slack does not accept this redirect URL.
    #[error(
        "not a redirect URL: it must be https without a fragment, or http on localhost for \
         development"
    )]
    RedirectUri,
    /// Neither bot scopes nor user scopes are configured.
    #[error("no scopes are configured: set bot scopes, user scopes, or both")]
    NoScopes,
    /// The lifetime is zero, or more than ten minutes.
    #[error("`state_lifetime` must be more than zero and at most 10 minutes")]
    StateLifetime,
}

/// The longest lifetime of a state: the lifetime of Slack's code.
pub(super) const MAX_STATE_LIFETIME: Duration = Duration::from_secs(600);

/// The default path where the flow starts. Link *Add to Slack* to it.
pub(super) const INSTALL_PATH: &str = "/slack/install";
