//! The install flow, from *Add to Slack* to a stored installation.
//!
//! The steps of a callback run in this order, and the first failure ends the flow: parse →
//! signature → expiry → cookie → session → `error` or `code` → consume → exchange → checks → policy
//! → store → enrich.
//!
//! Until the callback, the flow exists only in its browser: the cookie contains it, sealed. So a
//! stranger who starts flows writes nothing to the store. The state is consumed only after four
//! checks: this app signed it, it has not expired, it belongs to this browser, and to the session of
//! your app in which the flow started. A code is exchanged only once. The success page is shown only
//! after the installation was stored.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;
use url::Url;

use crate::clock::Clock;
use crate::error_chain::error_chain;
use crate::flight::fly;
use crate::installation::{Installation, Revision};
use crate::log_limit::LogLimit;
use crate::panics::catch_panic;
use crate::secret::{Code, SecretError};
use crate::slack::{self, Issued, SlackClient};
use crate::store::{Facts, InstallationStore, StateStore, in_time};
use crate::tenant::{EnterpriseId, TeamId};

mod config;
mod cookie;
mod error;
mod expected;
mod failed;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod hooks;
mod http_flow;
mod keep;
mod pages;
mod pending;
mod policies;
mod policy;
mod report;
mod scope_words;
mod sealed;
mod state;

pub use config::{ConfigError, InstallConfig, InstallOptions, RedirectUri, Requested};
pub use error::Error;
pub use failed::{FailedFlow, Flow};
pub use hooks::{InstallHooks, Installed};
pub use pages::{DefaultPages, InstallPage, PageResponse, Pages};
pub use policies::{
    AdminRequired, AllOf, AllowTenants, DenyTenants, OrgWide, RequiredScopes, SENSITIVE_SCOPES,
    ScopePatternError,
};
pub use policy::{Candidate, Decision, InstallPolicy};

use cookie::FlowCookie;
use failed::Known;
use pending::{Expected, Pending};
use policy::AllowAll;
use sealed::FlowKey;
use state::{State, StateKey};

/// A started flow: where to send the browser, and with which cookie.
pub struct Started {
    /// The URL of Slack's page, for a 302 response.
    pub authorize_url: Url,
    /// The value of a `Set-Cookie` header. The callback is refused without this cookie.
    pub set_cookie: SetCookie,
    /// The values of further `Set-Cookie` headers. They delete the cookies of older flows, of which
    /// the browser has too many. Empty without [`InstallOptions::cookies`].
    pub delete_cookies: Vec<SetCookie>,
}

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL contains the state.
        f.debug_struct("Started").finish_non_exhaustive()
    }
}

/// The value of a `Set-Cookie` header. It is a secret.
pub struct SetCookie(String);

impl SetCookie {
    /// Returns the header's value.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

redacted!(SetCookie);

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
    flow_key: Arc<FlowKey>,
    slack: SlackClient,
    installations: Arc<dyn InstallationStore>,
    states: Arc<dyn StateStore>,
    policy: Arc<dyn InstallPolicy>,
    hooks: Option<Arc<dyn InstallHooks>>,
    pages: Arc<dyn Pages>,
    clock: Clock,
    /// Whether the warning about a callback that cannot receive the flow's cookie was already
    /// logged.
    has_warned: Arc<AtomicBool>,
    /// For lines that a stranger can cause by opening the flow's URLs.
    log_limit: Arc<LogLimit>,
}

impl InstallProvider {
    /// Creates a provider that stores installations and used states in these stores. One
    /// [`EncryptedStore`](crate::EncryptedStore) can be both.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the configuration is invalid.
    pub fn new(
        config: InstallConfig,
        slack: SlackClient,
        installations: impl InstallationStore,
        states: impl StateStore,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        let pages = DefaultPages::new().with_install_path(&*config.install_path);
        let app = &config.credentials;
        let state_key = StateKey::derive(app, slack.old_credentials(app));
        let flow_key = FlowKey::derive(app, slack.old_credentials(app));
        Ok(Self(Arc::new(Inner {
            config: Arc::new(config),
            state_key: Arc::new(state_key),
            flow_key: Arc::new(flow_key),
            slack,
            installations: Arc::new(installations),
            states: Arc::new(states),
            policy: Arc::new(AllowAll),
            hooks: None,
            pages: Arc::new(pages),
            clock: Clock::default(),
            has_warned: Arc::new(AtomicBool::new(false)),
            log_limit: Arc::default(),
        })))
    }

    /// Uses this clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        self.with(|inner| inner.clock = clock)
    }

    /// Calls your app's hooks after each flow.
    #[must_use]
    pub fn with_hooks(self, hooks: impl InstallHooks) -> Self {
        self.with(|inner| inner.hooks = Some(Arc::new(hooks)))
    }

    /// Shows your app's pages.
    #[must_use]
    pub fn with_pages(self, pages: impl Pages) -> Self {
        self.with(|inner| inner.pages = Arc::new(pages))
    }

    /// Uses this policy to decide who may install.
    #[must_use]
    pub fn with_policy(self, policy: impl InstallPolicy) -> Self {
        self.with(|inner| inner.policy = Arc::new(policy))
    }

    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Returns the redirect URLs, the default one first.
    #[must_use]
    pub fn redirect_uris(&self) -> &[RedirectUri] {
        &self.0.config.redirect_uris
    }

    #[cfg(test)]
    pub(crate) fn config(&self) -> &InstallConfig {
        &self.0.config
    }

    /// Returns the path where the flow starts.
    #[must_use]
    pub fn install_path(&self) -> &str {
        &self.0.config.install_path
    }

    /// Returns the URL of the install path, at the host of the first redirect URL. With `?team=T…`
    /// or `?team=E…`, it is the link of one workspace or organisation.
    #[must_use]
    pub fn install_url(&self) -> Url {
        let config = &self.0.config;
        config.redirect_uris[0].at(&config.install_path)
    }

    /// Starts a flow: returns the URL of Slack's page, and the cookie that contains the flow, sealed,
    /// and binds it to this browser. Stores nothing.
    ///
    /// [`start_response`](Self::start_response) does this and builds the response. If your app has
    /// its own route, the route must send the cookies, forbid caching, and redirect:
    ///
    /// ```
    /// use http::{Response, StatusCode, header};
    /// use slack_installs::InstallProvider;
    /// use slack_installs::oauth::{Error, InstallOptions};
    ///
    /// async fn install(
    ///     provider: &InstallProvider,
    ///     plan: &str,
    ///     cookies: &str,
    /// ) -> Result<Response<()>, Error> {
    ///     let options = InstallOptions {
    ///         metadata: Some(plan.to_owned()),
    ///         cookies: Some(cookies.to_owned()),
    ///         ..InstallOptions::default()
    ///     };
    ///     let started = provider.start(options).await?;
    ///     let mut response = Response::builder()
    ///         .status(StatusCode::FOUND)
    ///         .header(header::LOCATION, started.authorize_url.as_str())
    ///         .header(header::SET_COOKIE, started.set_cookie.expose())
    ///         .header(header::CACHE_CONTROL, "no-store");
    ///     for cookie in &started.delete_cookies {
    ///         response = response.header(header::SET_COOKIE, cookie.expose());
    ///     }
    ///     Ok(response.body(()).expect("each header is visible ASCII"))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Options`] if the options are invalid, or too long for a cookie.
    #[allow(
        clippy::unused_async,
        reason = "a flow may need to wait in a later version"
    )]
    pub async fn start(&self, mut options: InstallOptions) -> Result<Started, Error> {
        let inner = &self.0;
        let cookies = options.cookies.take().unwrap_or_default();
        let pending = Pending::new(&inner.config, options)?;
        let cookie = FlowCookie::seal(&inner.flow_key, &pending.to_bytes());
        if !cookie.fits() {
            return Err(Error::Options(
                "the scopes and the metadata are too long together for a cookie: pass the id of a \
                 record of your app as the metadata",
            ));
        }
        let state = State::new(&cookie, inner.clock.now());
        let text = state.sign(&inner.state_key, &pending.redirect_uri);
        let is_plain = inner.is_plain_loopback(&pending.redirect_uri);
        let set_cookie = cookie.set(&state.id(), inner.config.state_lifetime, is_plain);
        let delete_cookies = cookie.make_room(&cookies, is_plain).into_iter();
        Ok(Started {
            authorize_url: inner.authorize_url(&pending, &text),
            set_cookie: SetCookie(set_cookie),
            delete_cookies: delete_cookies.map(SetCookie).collect(),
        })
    }

    /// Finishes a flow: checks a callback, exchanges its code and stores the installation.
    ///
    /// The exchange and the later steps run in their own task. If this future is dropped after the
    /// state was consumed, the flow still finishes. Servers drop it when a browser disconnects.
    ///
    /// Each step that waits for the store takes at most 10 s, and each call to Slack at most as long
    /// as the client waits. If the new tokens cannot be stored within their 10 s, the flow fails,
    /// and a task continues to store them.
    ///
    /// # Errors
    ///
    /// [`FailedFlow`]: the [`Error`](enum@Error), and what is known of the flow. After
    /// [`Error::NoState`], nothing was done. Send the person through [`start`](Self::start).
    pub async fn finish(&self, callback: &Callback<'_>) -> Result<Installed, Box<FailedFlow>> {
        let known = Known::new(Flow::of_callback(callback));
        let (state, pending) = match self.0.check_callback(callback, &known) {
            Ok(checked) => checked,
            // The person is sent through this app's own flow, so this is not a failure.
            Err(error @ Error::NoState) => return Err(known.failed(error)),
            Err(error) => return self.0.report(Err(error), &known).await,
        };
        let denied = callback.error.map(slack::ErrorCode::new);
        let code = callback.code.map(Code::new);
        let (provider, learned) = (Arc::clone(&self.0), known.clone());
        let task = tokio::spawn(async move {
            let outcome = provider.consume_and_install(&state, pending, denied, code, &learned);
            let outcome = fly(outcome);
            provider.report(outcome.await, &learned).await
        });
        match task.await {
            Ok(outcome) => outcome,
            Err(ended) => {
                // Without a panic, the runtime is shutting down. The hook is called in both cases.
                if ended.is_panic() {
                    let flow = known.flow();
                    tracing::error!(
                        tenant = report::tenant(&flow),
                        expected = flow.expected(),
                        "an install flow panicked, possibly in your app's store"
                    );
                }
                self.0.report(Err(Error::Interrupted), &known).await
            }
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

/// Returns whether Slack certainly used no code up, and issued no token.
fn took_no_code(error: &slack::Error) -> bool {
    match error {
        slack::Error::Api { code, .. } => code.as_str() == "invalid_code",
        slack::Error::RateLimited { .. } => true,
        slack::Error::Transport(error) => matches!(error, slack::TransportError::NotSent(_)),
        _ => false,
    }
}

/// The contents of a callback.
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
    /// The session of your app that the request belongs to. A flow that started with an
    /// [`InstallOptions::session`] ends only with the same value.
    pub session: Option<&'a str>,
    /// The path of the request, if known. A state for another redirect URL is then refused.
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
    fn authorize_url(&self, pending: &Pending, state: &str) -> Url {
        let mut url = self.slack.environment().authorize_url();
        url.query_pairs_mut()
            .append_pair("client_id", self.config.credentials.client_id.as_str())
            .append_pair("scope", &pending.scopes)
            .append_pair("user_scope", &pending.user_scopes)
            .append_pair("redirect_uri", &pending.redirect_uri)
            .append_pair("state", state);
        let organisation = pending.enterprise.as_ref().map(EnterpriseId::as_str);
        if let Some(place) = pending.team.as_ref().map(TeamId::as_str).or(organisation) {
            url.query_pairs_mut().append_pair("team", place);
        }
        url
    }

    fn is_plain_loopback(&self, redirect_uri: &str) -> bool {
        let mut uris = self.config.redirect_uris.iter();
        uris.any(|uri| uri.as_str() == redirect_uri && uri.is_plain_loopback())
    }

    /// Checks everything that can be checked before the state is consumed.
    fn check_callback(
        &self,
        callback: &Callback<'_>,
        known: &Known,
    ) -> Result<(State, Pending), Error> {
        let text = callback
            .state
            .filter(|state| !state.is_empty())
            .ok_or(Error::NoState)?;
        let verified = self.callback_uris(callback).find_map(|uri| {
            let state = State::verify(&self.state_key, text, uri.as_str())?;
            Some((state, uri))
        });
        let (state, uri) = verified.ok_or(Error::InvalidState)?;
        known.add(|flow| flow.started_at = Some(state.made_at()));
        state.check_age(self.clock.now(), self.config.state_lifetime)?;
        // Only the cookie name of this flow is accepted. On https, the name has the prefix
        // `__Host-`, which no sibling domain and no plain http response can set.
        let cookie = FlowCookie::find(callback.cookies, &state.id(), uri.is_plain_loopback());
        let cookie = cookie.filter(|cookie| state.is_bound_to(cookie));
        let cookie = cookie.ok_or(Error::OtherBrowser)?;
        let pending = cookie
            .open(&self.flow_key)
            .and_then(|flow| Pending::from_bytes(uri.as_str(), &flow))
            .ok_or(Error::InvalidState)?;
        if !pending.is_of_session(callback.session) {
            return Err(Error::OtherSession);
        }
        known.add(|flow| flow.add_pending(&pending));
        Ok((state, pending))
    }

    /// Returns the redirect URLs that this callback may belong to. If a router removed a prefix, or
    /// a proxy changed the host, no configured URL matches, and all of them are possible. The state is
    /// signed for the one that is repeated to Slack.
    fn callback_uris<'a>(
        &'a self,
        callback: &Callback<'a>,
    ) -> impl Iterator<Item = &'a RedirectUri> {
        let (path, host) = (callback.path, callback.host);
        let by_path = move |uri: &RedirectUri| path.is_none_or(|path| uri.path() == path);
        let by_host = move |uri: &RedirectUri| host.is_none_or(|host| uri.authority() == host);
        let all = &self.config.redirect_uris;
        let any_path = !all.iter().any(by_path);
        let any_host = !all.iter().any(by_host);
        all.iter()
            .filter(move |uri| any_path || by_path(uri))
            .filter(move |uri| any_host || by_host(uri))
    }

    async fn consume_and_install(
        &self,
        state: &State,
        pending: Pending,
        denied: Option<slack::ErrorCode>,
        code: Option<Result<Code, SecretError>>,
        known: &Known,
    ) -> Result<Installed, Error> {
        if let Some(code) = denied {
            return Err(Error::Denied(code));
        }
        let code = code.and_then(Result::ok).ok_or(Error::NoCode)?;
        // Before the state and the code are used, because the tokens could not be stored later.
        let ready = in_time(Instant::now() + STORE_PATIENCE, self.installations.ready());
        ready.await.map_err(Error::Store)?;
        let id = state.id();
        let consumed = self.states.consume(&id, state.used_until());
        let consumed = in_time(Instant::now() + STORE_PATIENCE, consumed).await;
        if !consumed.map_err(Error::Store)? {
            return Err(Error::UsedState);
        }
        let credentials = &self.config.credentials;
        let exchanged = self
            .slack
            .exchange_code(credentials, &code, &pending.redirect_uri)
            .await;
        match exchanged {
            Ok(Ok(issued)) => self.install(issued, pending, known).await,
            Ok(Err(unusable)) => {
                self.revoke_unusable(&unusable, known).await;
                Err(Error::Exchange(unusable.error()))
            }
            Err(error) => {
                if took_no_code(&error) {
                    self.release(state).await;
                }
                Err(Error::Exchange(error))
            }
        }
    }

    /// Takes the mark of the state back. So made-up codes do not fill the store, and a person whose
    /// code Slack did not take may try again. If this fails, the state stays used.
    async fn release(&self, state: &State) {
        let id = state.id();
        let released = self.states.release(&id);
        if let Err(error) = in_time(Instant::now() + STORE_PATIENCE, released).await
            && let Some(left_out) = self.log_limit.admit("release")
        {
            tracing::warn!(
                error = error_chain(&error),
                left_out,
                "a state stays marked as used, although Slack took no code"
            );
        }
    }

    async fn install(
        &self,
        issued: Issued,
        pending: Pending,
        known: &Known,
    ) -> Result<Installed, Error> {
        let requested = pending.requested();
        let expected = pending.expected();
        let mut installation = pending.into_installation(issued);
        known.add(|flow| flow.add_installation(&installation));
        if let Err(error) = self.check(&installation, &requested, &expected).await {
            self.revoke_unless_in_use(&installation).await;
            return Err(error);
        }
        let revision = match self.store(&installation).await {
            Ok(revision) => revision,
            Err(error) => {
                if error.is_transient() {
                    let inner = self.clone();
                    // The task has its own copy: this flow ends now, and that one later.
                    let later = Known::new(known.flow());
                    known.add(|flow| flow.is_kept = true);
                    drop(tokio::spawn(fly(inner.store_later(
                        installation,
                        requested,
                        later,
                    ))));
                } else {
                    tracing::error!(
                        tenant = %installation.key(),
                        error = error_chain(&error),
                        "an installation cannot be stored; its tokens exist only at Slack"
                    );
                }
                return Err(Error::Store(error));
            }
        };
        self.enrich(&mut installation, revision).await;
        Ok(Installed {
            installation,
            requested,
        })
    }

    /// Checks the tokens before they are stored.
    async fn check(
        &self,
        installation: &Installation,
        requested: &Requested,
        expected: &Expected,
    ) -> Result<(), Error> {
        if self
            .config
            .app_id
            .as_ref()
            .is_some_and(|app_id| *app_id != installation.app_id)
        {
            return Err(Error::OtherApp);
        }
        if !self.is_expected(installation, expected).await {
            return Err(Error::OtherTeam);
        }
        // Sign in with Slack returns the same form, but installs nothing.
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
        match catch_panic(self.policy.judge(&candidate)).await {
            Some(Decision::Allow) => Ok(()),
            Some(Decision::Refuse { reason }) => Err(Error::Refused { reason }),
            None => {
                tracing::error!(
                    tenant = %installation.key(),
                    "an install policy panicked, so the installation is refused"
                );
                let reason = "The app could not check this installation.".to_owned();
                Err(Error::Refused { reason })
            }
        }
    }

    /// Calls `auth.test` for facts that the exchange does not return. Best effort: the installation
    /// is already stored.
    async fn enrich(&self, installation: &mut Installation, revision: Revision) {
        let Some(grant) = installation.grants().into_iter().flatten().next() else {
            return;
        };
        let facts = match self.slack.auth_test(&grant.access_token).await {
            Ok(test) => Facts {
                bot_id: test.bot_id.filter(|_| installation.bot.is_some()),
                url: test.url,
            },
            Err(error) => {
                tracing::warn!(
                    tenant = %installation.key(),
                    error = error_chain(&error),
                    "auth.test failed after an installation, so its URL and bot id are not stored"
                );
                return;
            }
        };
        let key = installation.key();
        let noted = self.installations.note(&key, revision, &facts);
        match in_time(Instant::now() + STORE_PATIENCE, noted).await {
            Ok(true) => {
                installation.url = facts.url;
                if let Some(bot) = &mut installation.bot {
                    bot.id = facts.bot_id;
                }
            }
            // The app was installed again or removed in the meantime.
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(
                    tenant = %installation.key(),
                    error = error_chain(&error),
                    "the URL and the bot id from auth.test could not be stored"
                );
            }
        }
    }
}

/// How long a person waits for a step of the store.
const STORE_PATIENCE: Duration = Duration::from_secs(10);
