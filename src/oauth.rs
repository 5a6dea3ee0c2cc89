//! The install flow: from *Add to Slack* to a stored installation.
//!
//! A callback is judged in this order, and the first thing that is wrong ends it:
//! parse → signature → expiry → cookie → consume → `error` or `code` → exchange → checks →
//! policy → store → enrich. Nothing is consumed before the state is known to be ours, fresh, and
//! in the browser that it was made for; nothing is exchanged twice; nothing is shown as done
//! before it is stored.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use url::Url;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::installation::{Installation, Revision, Scopes};
use crate::secret::{Code, SecretError, same};
use crate::slack::{self, ClientCredentials, Issued, SlackClient, is_loopback};
use crate::store::{self, Facts, InstallationStore, StateStore};
use crate::tenant::{AppId, TeamId};

mod cookie;
mod http_flow;
mod pages;
mod policies;
mod policy;
mod state;

pub use pages::{DefaultPages, Page, Pages};
pub use policies::{
    AdminRequired, AllOf, AllowTenants, DenyTenants, OrgWide, RequiredScopes, SENSITIVE_SCOPES,
};
pub use policy::{AllowAll, Candidate, InstallPolicy, Verdict};

use cookie::FlowCookie;
use state::{State, StateKey};

/// What the app asks for, and where people come back to.
#[derive(Debug)]
pub struct InstallConfig {
    /// The app's client id and secret.
    pub credentials: ClientCredentials,
    /// Where Slack may send people back to, as configured at Slack. The first one is the default.
    pub redirect_uris: Vec<RedirectUri>,
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
            scopes,
            user_scopes: Scopes::default(),
            app_id: None,
            state_lifetime: MAX_STATE_LIFETIME,
        }
    }
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
    /// [`RedirectUriError`] unless it is `https` without a fragment (Slack's rule), or `http` on a
    /// loopback host, for development.
    pub fn new(text: &str) -> Result<Self, RedirectUriError> {
        let url = Url::parse(text).map_err(|_| RedirectUriError)?;
        let secure = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
        let plain =
            url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
        match secure && plain && url.host().is_some() {
            true => Ok(Self {
                text: text.into(),
                url,
            }),
            false => Err(RedirectUriError),
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

    fn is_plain_loopback(&self) -> bool {
        self.url.scheme() == "http"
    }

    /// `host` or `host:port`, as a browser puts it into the `Host` header.
    fn authority(&self) -> &str {
        self.url.authority()
    }
}

/// A URL that Slack would not send anybody back to.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error(
    "not a redirect URL: it must be https without a fragment, or http on localhost for development"
)]
pub struct RedirectUriError;

/// What one flow asks for, where it differs from the configuration.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
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
    /// Anything of the host's: kept sealed in the state's row, then with the installation. Never
    /// in a URL. 4 KiB at most.
    pub metadata: Option<String>,
}

/// A flow that has begun: where to send the browser, and with which cookie.
#[derive(Debug)]
pub struct Started {
    /// Slack's page, for a 302.
    pub authorize_url: Url,
    /// The value of a `Set-Cookie` header. Without it the callback is refused.
    pub set_cookie: SetCookie,
}

/// The value of a `Set-Cookie` header; a secret.
pub struct SetCookie(String);

impl SetCookie {
    /// The header's value.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SetCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SetCookie([redacted])")
    }
}

/// What a flow came to.
#[derive(Debug)]
#[non_exhaustive]
pub struct Installed {
    /// The installation, as it was stored.
    pub installation: Installation,
    /// What the flow had asked for.
    pub requested: Requested,
}

impl Installed {
    /// What the flow asked for and did not get: an admin may have withheld it, or the person left
    /// an optional scope out. Of a token that was not asked for, nothing is missing.
    #[must_use]
    pub fn missing_scopes(&self) -> Requested {
        let [bot, user] = policies::grants(&self.installation);
        Requested {
            scopes: policies::missing(bot, &self.requested.scopes),
            user_scopes: policies::missing(user, &self.requested.user_scopes),
        }
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

/// Called around the flow, for the host's own business.
///
/// # Contract
///
/// 1. `installed` is called after the installation is stored, once for each flow that ends well.
/// 2. `failed` is called for each flow that does not, with the reason.
///
/// # Consistency
///
/// A crash between the store and `installed` skips the call: reconcile from the store if that
/// matters.
///
/// # Cancel safety
///
/// The library awaits both on a task of its own, so a browser that goes away cancels nothing.
///
/// # Errors
///
/// Neither has any: what goes wrong inside is the host's to handle.
#[async_trait::async_trait]
pub trait InstallHooks: fmt::Debug + Send + Sync + 'static {
    /// An installation was stored.
    async fn installed(&self, installed: &Installed);

    /// A flow failed.
    async fn failed(&self, error: &Error);
}

/// Takes people through Slack's OAuth v2 flow. Cheap to clone.
///
/// ```
/// # fn example(
/// #     store: slack_installs::EncryptedStore<slack_installs::backend::MemoryBackend>,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use slack_installs::oauth::{InstallConfig, InstallProvider, RedirectUri};
/// use slack_installs::secret::ClientSecret;
/// use slack_installs::slack::{ClientCredentials, Environment, SlackClient};
/// use slack_installs::{ClientId, Scopes};
///
/// let config = InstallConfig::new(
///     ClientCredentials {
///         client_id: ClientId::new("100000000001.200000000002")?,
///         client_secret: ClientSecret::new("from-basic-information")?,
///     },
///     RedirectUri::new("https://bot.example.com/slack/oauth_redirect")?,
///     Scopes::from("commands,chat:write"),
/// );
/// let slack = SlackClient::new(Environment::commercial());
/// let provider = InstallProvider::new(config, slack, store.clone(), store)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct InstallProvider(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    config: Arc<InstallConfig>,
    state_key: Arc<StateKey>,
    slack: SlackClient,
    installations: Arc<dyn InstallationStore>,
    states: Arc<dyn StateStore>,
    policy: Arc<dyn InstallPolicy>,
    hooks: Option<Arc<dyn InstallHooks>>,
    pages: Arc<dyn Pages>,
    clock: Clock,
}

impl InstallProvider {
    /// A provider that keeps installations and states in these stores; one
    /// [`EncryptedStore`](crate::EncryptedStore) can be both.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the configuration cannot work.
    pub fn new(
        config: InstallConfig,
        slack: SlackClient,
        installations: impl InstallationStore,
        states: impl StateStore,
    ) -> Result<Self, ConfigError> {
        if config.redirect_uris.is_empty() {
            return Err(ConfigError::NoRedirectUri);
        }
        if config.scopes.is_empty() && config.user_scopes.is_empty() {
            return Err(ConfigError::NoScopes);
        }
        if config.state_lifetime > MAX_STATE_LIFETIME || config.state_lifetime.is_zero() {
            return Err(ConfigError::StateLifetime);
        }
        let state_key = StateKey::derive(&config.credentials);
        Ok(Self(Arc::new(Inner {
            config: Arc::new(config),
            state_key: Arc::new(state_key),
            slack,
            installations: Arc::new(installations),
            states: Arc::new(states),
            policy: Arc::new(AllowAll),
            hooks: None,
            pages: Arc::new(DefaultPages),
            clock: Clock::default(),
        })))
    }

    /// The same provider, with another clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        self.with(|inner| inner.clock = clock)
    }

    /// The same provider, with hooks of the host's.
    #[must_use]
    pub fn with_hooks(self, hooks: impl InstallHooks) -> Self {
        self.with(|inner| inner.hooks = Some(Arc::new(hooks)))
    }

    /// The same provider, with pages of the host's.
    #[must_use]
    pub fn with_pages(self, pages: impl Pages) -> Self {
        self.with(|inner| inner.pages = Arc::new(pages))
    }

    /// The same provider, with a policy on who may install.
    #[must_use]
    pub fn with_policy(self, policy: impl InstallPolicy) -> Self {
        self.with(|inner| inner.policy = Arc::new(policy))
    }

    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// The redirect URLs, the default one first.
    #[must_use]
    pub fn redirect_uris(&self) -> &[RedirectUri] {
        &self.0.config.redirect_uris
    }

    /// Begins a flow: keeps a state, and answers Slack's page and the cookie that binds the flow
    /// to this browser.
    ///
    /// # Errors
    ///
    /// [`StartError::Options`] if the options cannot work; [`StartError::Store`] if the state
    /// cannot be kept.
    pub async fn start(&self, options: InstallOptions) -> Result<Started, StartError> {
        let inner = &self.0;
        let pending = inner.pending(options)?;
        let now = inner.clock.now();
        let cookie = FlowCookie::generate();
        let state = State::new(&cookie, now);
        let expires_at = now + inner.config.state_lifetime;
        let payload = pending.to_payload();
        inner
            .states
            .issue(&state.id(), &payload, expires_at)
            .await
            .map_err(StartError::Store)?;
        let text = state.sign(&inner.state_key, &pending.redirect_uri);
        Ok(Started {
            authorize_url: inner.authorize_url(&pending, &text),
            set_cookie: SetCookie(cookie.set(
                &state.id(),
                inner.config.state_lifetime,
                inner.is_plain_loopback(&pending.redirect_uri),
            )),
        })
    }

    /// Ends a flow: judges a callback, exchanges its code and stores the installation.
    ///
    /// The exchange and what follows run on a task of their own: dropping this future, as servers
    /// do when a browser goes away, changes nothing once the state is consumed.
    ///
    /// # Errors
    ///
    /// [`Error`]. With [`Error::NoState`] nothing was done, and the person is to be sent through
    /// [`start`](Self::start).
    pub async fn finish(&self, callback: &Callback<'_>) -> Result<Installed, Error> {
        let state = self.0.judge(callback)?;
        let denied = callback.error.map(slack::ErrorCode::new);
        let code = callback.code.map(Code::new);
        let provider = Arc::clone(&self.0);
        let task = tokio::spawn(async move {
            let outcome = provider.consume_and_install(&state, denied, code).await;
            provider.report(&outcome).await;
            outcome
        });
        match task.await {
            Ok(outcome) => outcome,
            // Nothing in it panics; the runtime ends under it, or a hook of the host's panicked.
            Err(_) => Err(Error::Interrupted),
        }
    }
}

impl fmt::Debug for InstallProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstallProvider")
            .field("config", &self.0.config)
            .field("slack", &self.0.slack)
            .finish_non_exhaustive()
    }
}

/// What a callback brought.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub struct Callback<'a> {
    /// `state` of the query.
    pub state: Option<&'a str>,
    /// `code` of the query.
    pub code: Option<&'a str>,
    /// `error` of the query.
    pub error: Option<&'a str>,
    /// All `Cookie` headers, joined by `; `.
    pub cookies: &'a str,
    /// The path that was requested, if known: a state for another redirect URL is refused there.
    pub path: Option<&'a str>,
    /// The `Host` header, if known.
    pub host: Option<&'a str>,
}

impl fmt::Debug for Callback<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callback")
            .field("state", &self.state.map(|_| "[redacted]"))
            .field("code", &self.code.map(|_| "[redacted]"))
            .field("error", &self.error.map(slack::ErrorCode::new))
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn pending(&self, options: InstallOptions) -> Result<Pending, StartError> {
        let config = &self.config;
        let redirect_uri = match options.redirect_uri {
            Some(uri) if config.redirect_uris.contains(&uri) => uri,
            Some(_) => {
                return Err(StartError::Options(
                    "the redirect URL is not a configured one",
                ));
            }
            None => config.redirect_uris[0].clone(),
        };
        if options
            .metadata
            .as_ref()
            .is_some_and(|metadata| metadata.len() > MAX_METADATA)
        {
            return Err(StartError::Options("the metadata has more than 4 KiB"));
        }
        let scopes = options.scopes.unwrap_or_else(|| config.scopes.clone());
        let user_scopes = options
            .user_scopes
            .unwrap_or_else(|| config.user_scopes.clone());
        if scopes.is_empty() && user_scopes.is_empty() {
            return Err(StartError::Options("no scopes are asked for"));
        }
        Ok(Pending {
            redirect_uri: redirect_uri.as_str().into(),
            scopes: scopes.to_string(),
            user_scopes: user_scopes.to_string(),
            team: options.team,
            metadata: options.metadata,
        })
    }

    fn authorize_url(&self, pending: &Pending, state: &str) -> Url {
        let mut url = self.slack.environment().authorize_url();
        url.query_pairs_mut()
            .append_pair("client_id", self.config.credentials.client_id.as_str())
            .append_pair("scope", &pending.scopes)
            .append_pair("user_scope", &pending.user_scopes)
            .append_pair("redirect_uri", &pending.redirect_uri)
            .append_pair("state", state);
        if let Some(team) = &pending.team {
            url.query_pairs_mut().append_pair("team", team.as_str());
        }
        url
    }

    fn is_plain_loopback(&self, redirect_uri: &str) -> bool {
        let mut uris = self.config.redirect_uris.iter();
        uris.any(|uri| uri.as_str() == redirect_uri && uri.is_plain_loopback())
    }

    /// Everything that is checked before anything is consumed.
    fn judge(&self, callback: &Callback<'_>) -> Result<State, Error> {
        let text = callback
            .state
            .filter(|state| !state.is_empty())
            .ok_or(Error::NoState)?;
        let uris = self.callback_uris(callback);
        let state = State::verify(&self.state_key, text, uris).ok_or(Error::InvalidState)?;
        state.check_age(self.clock.now(), self.config.state_lifetime)?;
        let cookie = FlowCookie::find(callback.cookies, &state.id()).ok_or(Error::OtherBrowser)?;
        match state.is_bound_to(&cookie) {
            true => Ok(state),
            false => Err(Error::OtherBrowser),
        }
    }

    /// The redirect URLs that this callback may have come by. Where a router has cut off a
    /// prefix, or a proxy has changed the host, no configured URL matches, and all may have been
    /// it; the state's row still names the one that is repeated to Slack.
    fn callback_uris<'a>(&'a self, callback: &Callback<'a>) -> impl Iterator<Item = &'a str> {
        let all = &self.config.redirect_uris;
        let by_path = |uri: &&RedirectUri| callback.path.is_none_or(|path| uri.path() == path);
        let by_host = |uri: &&RedirectUri| callback.host.is_none_or(|host| uri.authority() == host);
        let any_path = !all.iter().any(|uri| by_path(&uri));
        let any_host = !all.iter().any(|uri| by_host(&uri));
        all.iter()
            .filter(move |uri| any_path || by_path(uri))
            .filter(move |uri| any_host || by_host(uri))
            .map(RedirectUri::as_str)
    }

    async fn consume_and_install(
        &self,
        state: &State,
        denied: Option<slack::ErrorCode>,
        code: Option<Result<Code, SecretError>>,
    ) -> Result<Installed, Error> {
        let payload = self.states.consume(&state.id(), self.clock.now()).await;
        let payload = payload.map_err(Error::Store)?.ok_or(Error::UsedState)?;
        let pending = Pending::from_payload(&payload).ok_or(Error::InvalidState)?;
        if let Some(code) = denied {
            return Err(Error::Denied(code));
        }
        let code = code.and_then(Result::ok).ok_or(Error::NoCode)?;
        let credentials = &self.config.credentials;
        let issued = self
            .slack
            .oauth_v2_access(credentials, &code, &pending.redirect_uri)
            .await
            .map_err(Error::Exchange)?;
        self.install(issued, pending).await
    }

    async fn install(&self, issued: Issued, pending: Pending) -> Result<Installed, Error> {
        let requested = pending.requested();
        let expected_team = pending.team.clone();
        let mut installation = pending.into_installation(issued);
        if let Err(error) = self.check(&installation, &requested, expected_team).await {
            self.revoke_unless_in_use(&installation).await;
            return Err(error);
        }
        let revision = self.store(&installation).await?;
        installation.revision = Some(revision);
        self.enrich(&mut installation, revision).await;
        Ok(Installed {
            installation,
            requested,
        })
    }

    /// What must hold of the tokens before they are kept.
    async fn check(
        &self,
        installation: &Installation,
        requested: &Requested,
        expected_team: Option<TeamId>,
    ) -> Result<(), Error> {
        if self
            .config
            .app_id
            .as_ref()
            .is_some_and(|app_id| *app_id != installation.app_id)
        {
            return Err(Error::OtherApp);
        }
        let team = installation.home.team().map(|team| &team.id);
        if expected_team.is_some() && expected_team.as_ref() != team {
            return Err(Error::OtherTeam);
        }
        // Sign in with Slack answers in the same form; it installs nothing.
        let identity_only = installation.user.as_ref().is_some_and(|user| {
            user.grant
                .scopes
                .iter()
                .all(|scope| scope.starts_with("identity."))
        });
        if installation.bot.is_none() && (installation.user.is_none() || identity_only) {
            return Err(Error::NothingGranted);
        }
        let candidate = Candidate {
            installation,
            requested,
            slack: &self.slack,
        };
        match self.policy.judge(&candidate).await {
            Verdict::Allow => Ok(()),
            Verdict::Refuse { reason } => Err(Error::Refused { reason }),
        }
    }

    /// Stores, and tries again while the database is away: the code is spent, and these tokens
    /// are nowhere else.
    async fn store(&self, installation: &Installation) -> Result<Revision, Error> {
        for pause in STORE_PAUSES {
            match self.installations.store(installation).await {
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "an installation could not be stored yet");
                    tokio::time::sleep(pause).await;
                }
                outcome => return outcome.map_err(Error::Store),
            }
        }
        self.installations
            .store(installation)
            .await
            .map_err(Error::Store)
    }

    /// Asks `auth.test` for what the exchange does not tell. Best effort: the installation is
    /// stored already.
    async fn enrich(&self, installation: &mut Installation, revision: Revision) {
        let grants = [
            installation.bot.as_ref().map(|bot| &bot.grant),
            installation.user.as_ref().map(|user| &user.grant),
        ];
        let Some(grant) = grants.into_iter().flatten().next() else {
            return;
        };
        let facts = match self.slack.auth_test(&grant.access_token).await {
            Ok(test) => Facts {
                bot_id: test.bot_id.filter(|_| installation.bot.is_some()),
                url: test.url,
            },
            Err(error) => {
                tracing::warn!(tenant = %installation.key(), %error, "auth.test failed after an installation");
                return;
            }
        };
        match self
            .installations
            .note(&installation.key(), revision, &facts)
            .await
        {
            Ok(_) => {
                installation.url = facts.url;
                if let Some(bot) = &mut installation.bot {
                    bot.id = facts.bot_id;
                }
            }
            Err(error) => {
                tracing::warn!(tenant = %installation.key(), %error, "what auth.test told could not be stored");
            }
        }
    }

    /// Revokes tokens that were just issued and will not be kept.
    ///
    /// Without token rotation Slack answers a reinstall with the same token string that an
    /// earlier installation has stored; revoking that would take the earlier installation down,
    /// so a token that is stored is left alone. If the store does not answer, so are both.
    async fn revoke_unless_in_use(&self, installation: &Installation) {
        let user = installation.user.as_ref();
        let key = installation.key();
        let stored = self
            .installations
            .fetch(&key, user.map(|user| &user.id))
            .await;
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => {
                tracing::error!(tenant = %key, %error, "refused tokens are not revoked: it is unknown whether they are in use");
                return;
            }
        };
        let stored_bot = stored.as_ref().and_then(|stored| stored.bot.as_ref());
        let stored_user = stored.as_ref().and_then(|stored| stored.user.as_ref());
        let pairs = [
            (
                installation.bot.as_ref().map(|bot| &bot.grant),
                stored_bot.map(|bot| &bot.grant),
            ),
            (
                user.map(|user| &user.grant),
                stored_user.map(|user| &user.grant),
            ),
        ];
        for (issued, stored) in pairs {
            let Some(issued) = issued else { continue };
            let in_use = stored.is_some_and(|stored| {
                same(stored.access_token.expose(), issued.access_token.expose())
            });
            if in_use {
                tracing::info!(tenant = %key, "a refused token belongs to an earlier installation and stays");
            } else if let Err(error) = self.slack.auth_revoke(&issued.access_token).await {
                tracing::error!(tenant = %key, %error, "a refused token could not be revoked");
            }
        }
    }

    async fn report(&self, outcome: &Result<Installed, Error>) {
        match outcome {
            Ok(installed) => {
                tracing::info!(tenant = %installed.installation.key(), "installed");
            }
            Err(error) => tracing::info!(%error, "an install flow ended without an installation"),
        }
        match (&self.hooks, outcome) {
            (Some(hooks), Ok(installed)) => hooks.installed(installed).await,
            (Some(hooks), Err(error)) => hooks.failed(error).await,
            (None, _) => {}
        }
    }
}

/// What a flow asked for, as its state's row keeps it. Nothing of it is in a URL.
#[derive(Deserialize, Serialize)]
struct Pending {
    redirect_uri: String,
    scopes: String,
    user_scopes: String,
    team: Option<TeamId>,
    metadata: Option<String>,
}

impl Pending {
    fn to_payload(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(serde_json::to_vec(self).expect("plain fields always serialise"))
    }

    fn from_payload(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }

    fn requested(&self) -> Requested {
        Requested {
            scopes: Scopes::from(self.scopes.as_str()),
            user_scopes: Scopes::from(self.user_scopes.as_str()),
        }
    }

    fn into_installation(self, issued: Issued) -> Installation {
        let mut installation = Installation::new(issued.app_id, issued.home, issued.at);
        installation.bot = issued.bot;
        installation.user = issued.user;
        installation.installed_by = issued.authed_user;
        installation.incoming_webhooks = issued.incoming_webhook.into_iter().collect();
        installation.metadata = self.metadata;
        installation
    }
}

/// Why a provider cannot be made.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// No redirect URL.
    #[error("no redirect URL is configured: Slack has nowhere to send people back to")]
    NoRedirectUri,
    /// Neither bot scopes nor user scopes.
    #[error("no scopes are configured: give bot scopes, user scopes, or both")]
    NoScopes,
    /// Zero, or over ten minutes.
    #[error("the state's lifetime must be above zero and at most 10 minutes")]
    StateLifetime,
}

/// Why a flow did not begin.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The options cannot work.
    #[error("this install flow cannot begin: {0}")]
    Options(&'static str),
    /// The state could not be kept.
    #[error("the install flow's state could not be kept")]
    Store(#[source] store::Error),
}

/// Why a flow did not end with an installation.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The person, or Slack, said no.
    #[error("the installation was not allowed: {0}")]
    Denied(slack::ErrorCode),
    /// Slack did not exchange the code, or answered something that cannot be kept.
    #[error("the code could not be exchanged for tokens")]
    Exchange(#[source] slack::Error),
    /// The task that finished the flow ended early: the process is shutting down.
    #[error("the flow was interrupted")]
    Interrupted,
    /// The state is not one of ours, or is for another app or redirect URL.
    #[error("the state is not one that this app made for this redirect URL")]
    InvalidState,
    /// The callback has neither a code nor an error.
    #[error("the callback has no code")]
    NoCode,
    /// The callback has no state: the installation was started at Slack. Its code is not
    /// exchanged; the person goes through our own flow.
    #[error("the callback has no state")]
    NoState,
    /// Slack granted neither a bot nor a user's token to keep.
    #[error("nothing was granted that could be kept as an installation")]
    NothingGranted,
    /// The tokens are for another app than the configured one.
    #[error("the tokens are for another app")]
    OtherApp,
    /// The flow was begun in another browser, or its cookie is gone.
    #[error("the flow was begun in another browser, or this one does not keep its cookie")]
    OtherBrowser,
    /// The app was installed in another workspace than the flow was meant for.
    #[error("the app was installed in another workspace than this flow was for")]
    OtherTeam,
    /// The host's policy refused it.
    #[error("the installation was refused by policy: {reason}")]
    Refused {
        /// Why, in words for the person who installs.
        reason: String,
    },
    /// The state's ten minutes are over.
    #[error("the state has expired")]
    StateExpired,
    /// The store did not do it.
    #[error("the installation could not be stored")]
    Store(#[source] store::Error),
    /// The state was consumed before.
    #[error("the state was used before")]
    UsedState,
}

impl Error {
    /// Whether the person may succeed by simply trying again.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Exchange(error) => error.is_transient(),
            Self::Store(error) => error.is_transient(),
            Self::Interrupted | Self::StateExpired | Self::UsedState => true,
            _ => false,
        }
    }

    /// The tenant-less name of the reason, for logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Denied(_) => "denied",
            Self::Exchange(_) => "exchange",
            Self::Interrupted => "interrupted",
            Self::InvalidState => "invalid_state",
            Self::NoCode => "no_code",
            Self::NoState => "no_state",
            Self::NothingGranted => "nothing_granted",
            Self::OtherApp => "other_app",
            Self::OtherBrowser => "other_browser",
            Self::OtherTeam => "other_team",
            Self::Refused { .. } => "refused",
            Self::StateExpired => "state_expired",
            Self::Store(_) => "store",
            Self::UsedState => "used_state",
        }
    }
}

/// Slack's code lives as long.
const MAX_STATE_LIFETIME: Duration = Duration::from_secs(600);

/// Enough for an id and a few words of the host's; a row stays small.
const MAX_METADATA: usize = 4096;

/// How long to wait before storing again: a person is waiting, so a few seconds in all.
const STORE_PAUSES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(900),
    Duration::from_millis(2700),
];
