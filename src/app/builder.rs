//! Builds a [`SlackApp`] from its parts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use url::Url;
use zeroize::Zeroizing;

use super::env::{self, Keys, Value, Values};
use super::error::AppError;
use super::health::Checks;
use super::{Parts, SlackApp};
use crate::audit::{Audit, AuditOptions};
use crate::authorize::Authorizer;
use crate::clock::Clock;
use crate::encrypted::CacheOptions;
use crate::events::{Lifecycle, LifecycleHooks};
use crate::gate::{Gate, Refusals};
use crate::installation::Scopes;
use crate::oauth::{
    DefaultPages, InstallConfig, InstallHooks, InstallPolicy, InstallProvider, Pages,
};
use crate::operate::Operator;
use crate::replay::ReplayGuard;
use crate::request::Verifier;
use crate::rotation::{RefreshThreshold, RotationConfig, TokenRotator};
use crate::seal::{KeyProvider, LocalKeyProvider, MasterKey};
use crate::secret::{ClientSecret, SigningSecret};
use crate::slack::{ClientCredentials, SlackClient};
use crate::store::Store;
use crate::tenant::{AppId, ClientId};

/// Builds a [`SlackApp`]. Each method replaces the value from the environment.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use slack_installs::backend::MemoryBackend;
/// use slack_installs::secret::{ClientSecret, SigningSecret};
/// use slack_installs::slack::ClientCredentials;
/// use slack_installs::{ClientId, EncryptedStore, LocalKeyProvider, MasterKey, SlackApp};
///
/// let client_id = ClientId::new("100000000001.200000000002")?;
/// let keys = LocalKeyProvider::new(MasterKey::generate());
/// let store = EncryptedStore::open(MemoryBackend::default(), keys, client_id.clone()).await?;
/// let app = SlackApp::builder()
///     .credentials(ClientCredentials {
///         client_id,
///         client_secret: ClientSecret::new("from-basic-information")?,
///     })
///     .signing_secret(SigningSecret::new("from-basic-information-too")?)
///     .redirect_uri("https://bot.example.com/slack/oauth_redirect")
///     .scopes("commands,chat:write")
///     .store(store)
///     .build()
///     .await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
#[must_use = "an app is built by `build`"]
pub struct SlackAppBuilder {
    pub(super) values: Values,
    /// Whether `redirect_uri` was called. Its first call discards the URL from the environment.
    has_own_redirects: bool,
    app_id: Option<AppId>,
    pub(super) audit: Option<AuditOptions>,
    cache: Option<CacheOptions>,
    pub(super) clock: Clock,
    handles_once: bool,
    has_install_page: bool,
    app_name: Option<String>,
    install_hooks: Option<Arc<dyn InstallHooks>>,
    install_path: Option<String>,
    pub(super) is_pkce_app: bool,
    is_strict: bool,
    pub(super) lifecycle_hooks: Option<Arc<dyn LifecycleHooks>>,
    old_signing_secret: Option<SigningSecret>,
    pages: Option<Arc<dyn Pages>>,
    policy: Option<Arc<dyn InstallPolicy>>,
    refusals: Option<Arc<dyn Refusals>>,
    scopes: Scopes,
    site: Value<Url>,
    slack: Option<SlackClient>,
    store: Option<Arc<dyn Store>>,
    threshold: Value<RefreshThreshold>,
    user_scopes: Scopes,
}

impl SlackAppBuilder {
    pub(super) fn of(values: Values) -> Self {
        Self {
            values,
            ..Self::default()
        }
    }

    /// Sets the app's client id and secret.
    pub fn credentials(mut self, credentials: ClientCredentials) -> Self {
        self.values.client_id = Some(Ok(credentials.client_id));
        self.values.client_secret = Some(Ok(credentials.client_secret));
        self
    }

    /// Sets the app's signing secret.
    pub fn signing_secret(mut self, secret: SigningSecret) -> Self {
        self.values.signing_secret = Some(Ok(secret));
        self
    }

    /// Also accepts this client secret, the app's previous one.
    ///
    /// Use it while you replace the client secret, until every process has the new one. An install
    /// flow then ends in any process, and a call to Slack is repeated with this secret if Slack
    /// refuses the new one.
    pub fn old_client_secret(mut self, secret: ClientSecret) -> Self {
        self.values.old_client_secret = Some(Ok(secret));
        self
    }

    /// Also accepts requests that are signed with this secret.
    ///
    /// Use it while you replace the signing secret.
    pub fn old_signing_secret(mut self, secret: SigningSecret) -> Self {
        self.old_signing_secret = Some(secret);
        self
    }

    /// Adds a redirect URL. Configure the same URL at Slack. The first one is the default.
    pub fn redirect_uri(mut self, uri: impl AsRef<str>) -> Self {
        if !self.has_own_redirects {
            self.values.redirect_uris.clear();
            self.has_own_redirects = true;
        }
        let uri = env::redirect_uri("the redirect URL", uri.as_ref());
        self.values.redirect_uris.push(uri);
        self
    }

    /// Sets the bot's scopes. If there are none, the app acts only as its users.
    pub fn scopes(mut self, scopes: impl Into<Scopes>) -> Self {
        self.scopes = scopes.into();
        self
    }

    /// Sets the scopes of the installing user's token.
    pub fn user_scopes(mut self, scopes: impl Into<Scopes>) -> Self {
        self.user_scopes = scopes.into();
        self
    }

    /// Sets the app's id. Tokens and requests of any other app are then refused.
    pub fn app_id(mut self, app_id: AppId) -> Self {
        self.app_id = Some(app_id);
        self
    }

    /// Sets the store, instead of a database URL and a key provider.
    ///
    /// Use it for a backend with its own options.
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Sets the database's URL ([`connect`](crate::backend::connect) lists its forms).
    pub fn database(mut self, url: impl Into<String>) -> Self {
        self.values.url = Some(Ok(Zeroizing::new(url.into())));
        self
    }

    /// Sets the master key, which wraps the data keys in the database.
    pub fn master_key(self, key: MasterKey) -> Self {
        self.key_provider(LocalKeyProvider::new(key))
    }

    /// Sets the key provider, which wraps the data keys in the database.
    pub fn key_provider(mut self, provider: impl KeyProvider) -> Self {
        self.values.keys = Some(Ok(Keys::Provider(Arc::new(provider))));
        self
    }

    /// Sets the key provider by its URL ([`keys::connect`](crate::keys::connect) lists the forms).
    pub fn keys(mut self, url: impl Into<String>) -> Self {
        let url = Zeroizing::new(url.into());
        self.values.keys = Some(Ok(Keys::Url {
            name: "the key URL",
            url,
        }));
        self
    }

    /// Caches sealed rows in memory for a short time
    /// ([`with_cache`](crate::EncryptedStore::with_cache) has the consequences). Has no effect on a
    /// store that you set with [`store`](Self::store).
    pub fn cache(mut self, options: CacheOptions) -> Self {
        self.cache = Some(options);
        self
    }

    /// Records in the database who had which credential, when, and why ([`audit`](crate::audit)).
    /// [`shutdown`](SlackApp::shutdown) closes the log.
    ///
    /// For a store that you set with [`store`](Self::store), and for a log in another database, open
    /// the log with [`Audit::open`] and pass it to
    /// [`EncryptedStore::with_witness`](crate::EncryptedStore::with_witness) instead.
    pub fn audit(mut self, options: AuditOptions) -> Self {
        self.audit = Some(options);
        self
    }

    /// Sets the client for Slack's Web API, for another environment or your own transport.
    pub fn slack(mut self, slack: SlackClient) -> Self {
        self.slack = Some(slack);
        self
    }

    /// Sets the clock that all parts use, for tests.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the hooks that are called after an uninstallation, and after the end of an
    /// authorization, a chain of tokens or the access to a workspace. They are called durably and
    /// at least once.
    pub fn lifecycle_hooks(mut self, hooks: impl LifecycleHooks) -> Self {
        self.lifecycle_hooks = Some(Arc::new(hooks));
        self
    }

    /// Sets the hooks that are called after an installation.
    pub fn install_hooks(mut self, hooks: impl InstallHooks) -> Self {
        self.install_hooks = Some(Arc::new(hooks));
        self
    }

    /// Sets the policy that decides who may install the app.
    pub fn install_policy(mut self, policy: impl InstallPolicy) -> Self {
        self.policy = Some(Arc::new(policy));
        self
    }

    /// Sets the app's name, which the pages at the end of the install flow show.
    pub fn app_name(mut self, name: impl Into<String>) -> Self {
        self.app_name = Some(name.into());
        self
    }

    /// Sets the app's website, to which the pages at the end of the install flow link.
    pub fn site(mut self, url: impl AsRef<str>) -> Self {
        self.site = Some(env::site(url.as_ref()));
        self
    }

    /// Sets the path of the install page, as the browser sees it. The default is `/slack/install`.
    pub fn install_path(mut self, path: impl Into<String>) -> Self {
        self.install_path = Some(path.into());
        self
    }

    /// Shows a page with the requested scopes before the redirect to Slack. Leave it out for an app
    /// in Slack's Marketplace, which requires a direct redirect.
    pub fn install_page(mut self) -> Self {
        self.has_install_page = true;
        self
    }

    /// Sets your own pages for the install flow.
    ///
    /// [`app_name`](Self::app_name), [`site`](Self::site) and [`install_page`](Self::install_page)
    /// then have no effect.
    pub fn pages(mut self, pages: impl Pages) -> Self {
        self.pages = Some(Arc::new(pages));
        self
    }

    /// Sets your app's responses to requests that cannot be served, for example in the person's
    /// language. By default they are in English, with the install link where it helps.
    pub fn refusals(mut self, refusals: impl Refusals) -> Self {
        self.refusals = Some(Arc::new(refusals));
        self
    }

    /// Passes each request to your handlers once.
    ///
    /// If Slack repeats a request, or an attacker replays it, the response is empty. Costs two
    /// commits per request.
    pub fn handle_once(mut self) -> Self {
        self.handles_once = true;
        self
    }

    /// Makes callers wait for every refresh that is due, even while the old token is valid.
    pub fn strict_rotation(mut self) -> Self {
        self.is_strict = true;
        self
    }

    /// Sets how long before its expiry a token is refreshed: 10 minutes to 4 hours, give or take a
    /// quarter of it. The default is two hours. [`RotationConfig::threshold`] has more.
    pub fn refresh_before_expiry(mut self, threshold: Duration) -> Self {
        let threshold = RefreshThreshold::new(threshold);
        let threshold =
            threshold.map_err(|source| AppError::value("`refresh_before_expiry`", None, source));
        self.threshold = Some(threshold);
        self
    }

    /// Declares that PKCE is enabled for the app at Slack.
    ///
    /// The app's refresh tokens then expire after 30 days
    /// (`docs.slack.dev/authentication/using-pkce`), so idle ones are refreshed after 20 days.
    pub fn pkce_app(mut self) -> Self {
        self.is_pkce_app = true;
        self
    }

    /// Builds the app: checks the configuration, and opens the database and its keys.
    ///
    /// # Errors
    ///
    /// Returns [`AppError`] if a value is missing or wrong, or the database cannot be used. Its
    /// text names the value, the cause and the remedy.
    pub async fn build(mut self) -> Result<SlackApp, AppError> {
        let credentials = self.required_credentials()?;
        let threshold = self.threshold.take().transpose()?;
        let verifier = self.verifier()?;
        let config = self.install_config(&credentials)?;
        let pages = self.install_pages(&config.install_path)?;
        let (store, audit) = self.opened(&credentials.client_id).await?;

        let slack = self.slack_client(&credentials)?;
        let clock = self.clock;
        let slack = slack.with_clock(clock.clone());
        let mut provider = InstallProvider::new(
            config,
            slack.clone(),
            Arc::clone(&store),
            Arc::clone(&store),
        )?
        .with_clock(clock.clone())
        .with_pages(pages);
        if let Some(hooks) = self.install_hooks {
            provider = provider.with_hooks(hooks);
        }
        if let Some(policy) = self.policy {
            provider = provider.with_policy(policy);
        }

        let rotation = RotationConfig {
            strict: self.is_strict,
            is_pkce_app: self.is_pkce_app,
            threshold: threshold.unwrap_or_default(),
            ..RotationConfig::new(credentials.clone())
        };
        let mut lifecycle =
            Lifecycle::new(Arc::clone(&store), slack.clone()).with_clock(clock.clone());
        if let Some(hooks) = self.lifecycle_hooks {
            lifecycle = lifecycle.with_hooks(hooks);
        }
        let operator = Operator::new(
            Arc::clone(&store),
            slack.clone(),
            lifecycle.clone(),
            credentials,
        )
        .with_clock(clock.clone());
        let rotator = TokenRotator::new(rotation, slack.clone(), Arc::clone(&store))
            .with_clock(clock.clone());
        let rotator = operator.heal_calls(rotator);
        let authorizer = Authorizer::new(Arc::clone(&store))
            .with_rotator(&rotator)
            .with_clock(clock.clone());
        let mut gate = Gate::new(authorizer, lifecycle.clone())
            .with_install_url(provider.install_url())
            .with_refusals(self.refusals);
        if self.handles_once {
            let guard = ReplayGuard::new(Arc::clone(&store)).with_clock(clock.clone());
            gate = gate.with_replay_guard(guard);
        }
        Ok(SlackApp::new(Parts {
            audit,
            checks: Checks::default(),
            clock,
            gate,
            lifecycle,
            operator,
            provider,
            rotator,
            slack,
            store,
            verifier,
            stop: watch::Sender::new(false),
        }))
    }

    fn required_credentials(&mut self) -> Result<ClientCredentials, AppError> {
        let (id, secret) = (&mut self.values.client_id, &mut self.values.client_secret);
        Ok(ClientCredentials {
            client_id: required(id.take(), env::CLIENT_ID, BASIC_INFORMATION)?,
            client_secret: required(secret.take(), env::CLIENT_SECRET, BASIC_INFORMATION)?,
        })
    }

    /// Returns the client that was set, or one for the Slack that the values name, with the old
    /// secret.
    pub(super) fn slack_client(
        &mut self,
        credentials: &ClientCredentials,
    ) -> Result<SlackClient, AppError> {
        let environment = self.values.environment.take().transpose()?;
        let slack = self.slack.take();
        let slack = slack.unwrap_or_else(|| SlackClient::new(environment.unwrap_or_default()));
        let old = self.values.old_client_secret.take().transpose()?;
        Ok(match old {
            Some(client_secret) => slack.with_old_credentials(ClientCredentials {
                client_id: credentials.client_id.clone(),
                client_secret,
            }),
            None => slack,
        })
    }

    fn verifier(&mut self) -> Result<Verifier, AppError> {
        let secret = required(
            self.values.signing_secret.take(),
            env::SIGNING_SECRET,
            BASIC_INFORMATION,
        )?;
        let mut verifier = Verifier::new(&secret).with_clock(self.clock.clone());
        if let Some(secret) = &self.old_signing_secret {
            verifier = verifier.with_secret(secret);
        }
        if let Some(app_id) = &self.app_id {
            verifier = verifier.with_app_id(app_id.clone());
        }
        Ok(verifier)
    }

    fn install_config(
        &mut self,
        credentials: &ClientCredentials,
    ) -> Result<InstallConfig, AppError> {
        let redirect_uris = std::mem::take(&mut self.values.redirect_uris);
        let redirect_uris = redirect_uris.into_iter().collect::<Result<Vec<_>, _>>()?;
        let first = redirect_uris.first().cloned().ok_or_else(|| {
            AppError::missing(
                env::REDIRECT_URI,
                "set it to the redirect URL on the app's page OAuth & Permissions, or call \
                 `redirect_uri`",
            )
        })?;
        let scopes = std::mem::take(&mut self.scopes);
        let mut config = InstallConfig::new(credentials.clone(), first, scopes);
        config.redirect_uris = redirect_uris;
        config.user_scopes = std::mem::take(&mut self.user_scopes);
        config.app_id = self.app_id.take();
        if let Some(path) = self.install_path.take() {
            config.install_path = path;
        }
        Ok(config)
    }

    fn install_pages(&mut self, install_path: &str) -> Result<Arc<dyn Pages>, AppError> {
        let mut pages = DefaultPages::new().with_install_path(install_path);
        if let Some(site) = self.site.take().transpose()? {
            pages = pages.with_site(site);
        }
        if let Some(name) = self.app_name.take() {
            pages = pages.with_app_name(name);
        }
        if self.has_install_page {
            pages = pages.with_install_page();
        }
        Ok(self.pages.take().unwrap_or_else(|| Arc::new(pages)))
    }

    /// Returns the store that was set, or opens the one at the URL, with its audit log.
    async fn opened(&mut self, app: &ClientId) -> Result<Opened, AppError> {
        if let Some(store) = self.store.take() {
            return match self.audit {
                Some(_) => Err(AppError::unaudited()),
                None => Ok((store, None)),
            };
        }
        let (store, audit) = self.encrypted_to_write(app).await?;
        let store: Arc<dyn Store> = match self.cache {
            Some(options) => Arc::new(store.with_cache(options)),
            None => Arc::new(store),
        };
        Ok((store, audit))
    }
}

/// A store, and the log that it tells what it does.
type Opened = (Arc<dyn Store>, Option<Audit>);

debug_fields!(SlackAppBuilder: scopes, user_scopes);

pub(super) fn required<T>(value: Value<T>, variable: &str, remedy: &str) -> Result<T, AppError> {
    value.unwrap_or_else(|| Err(AppError::missing(variable, remedy)))
}

pub(super) const BASIC_INFORMATION: &str = "copy it from the app's page Basic Information at \
                                 https://api.slack.com/apps";
