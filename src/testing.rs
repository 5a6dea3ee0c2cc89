//! A fake Slack, and conformance checks for your own [`Backend`](crate::backend::Backend).
//!
//! [`FakeSlack`] is a Slack for tests:
//!
//! * It shows the authorize page, and exchanges codes for tokens.
//! * It serves the Web API methods that installations need, and counts the calls.
//! * It sends your app signed events and commands.
//! * It injects faults on request.
//!
//! It runs on loopback or in process, and keeps its data in memory.
//!
//! The fake enforces the rules of Slack's documentation. A code works once and for ten minutes.
//! The redirect URI must be repeated exactly. A reinstalled bot keeps its token. A revoked token is
//! invalid. Where the documentation has no rule, the doc comments here describe the chosen
//! behaviour. Tokens rotate after [`FakeSlack::rotate_tokens`] was called.
//!
//! This example connects an app to the fake and starts the install flow:
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use slack_installs::slack::{ClientCredentials, SlackClient};
//! use slack_installs::testing::FakeSlack;
//! use slack_installs::{InstallOptions, MasterKey, SlackApp};
//!
//! let fake = FakeSlack::start().await?;
//! let app = SlackApp::builder()
//!     .credentials(ClientCredentials {
//!         client_id: fake.client_id(),
//!         client_secret: fake.client_secret(),
//!     })
//!     .signing_secret(fake.signing_secret())
//!     .slack(SlackClient::new(fake.environment()))
//!     .clock(fake.clock())
//!     .redirect_uri("http://localhost:3000/slack/oauth_redirect")
//!     .scopes("commands")
//!     .database("memory:")
//!     .master_key(MasterKey::generate())
//!     .build()
//!     .await?;
//! let started = app.provider().start(InstallOptions::default()).await?;
//! let callback = fake.allow(&started.authorize_url, "U0ADMIN0001")?;
//! # let _ = callback;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Over HTTP, [`FakeSlack::install`] installs the app as a browser does, and [`Browser`] keeps
//! cookies over several requests. [`FakeSlack::deliver`] sends signed commands and events.
//! [`FakeSlack::socket_frame`] turns them into frames of Socket Mode. [`FakeSlack::take_events`]
//! returns the events that Slack sends by itself, such as `app_uninstalled`.
//!
//! [`FakeSlack::respond`] sets the response of any other method, such as `chat.postMessage`.
//! [`FakeSlack::call_log`] has the arguments of each call. Messages to incoming webhooks are in
//! [`FakeSlack::webhook_posts`], and replies to a `response_url` in [`FakeSlack::replies`].
//!
//! The authorize page refuses scopes that Slack does not have, and scopes of the wrong kind of
//! token, with `invalid_scope`. The list of scopes is kept by hand from
//! `docs.slack.dev/reference/scopes`. If it lacks a new one, add it with [`World::with_scopes`].
//!
//! Two things differ from Slack on purpose:
//!
//! * Webhooks and `response_url`s are on the fake's own host, so that your app's messages stay on
//!   this machine.
//! * A redirect URL may be plain `http` on loopback, so that your app needs no certificate.
//!
//! [`conformance`] checks that a backend fulfils its contract. [`Flaky`] is a backend that loses
//! requests and responses.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::net::TcpListener;
use url::Url;

use crate::clock::Clock;
use crate::installation::Scopes;
use crate::secret::{AccessToken, ClientSecret, SigningSecret};
use crate::slack::Environment;
use crate::tenant::{AppId, ClientId, EnterpriseId, InstallationKey, TeamId, UserId};

mod api;
mod app;
mod authorize;
mod browser;
mod calls;
mod canned;
pub mod conformance;
mod consent;
mod cookies;
mod core;
mod delivery;
mod fault;
mod flaky;
mod mint;
mod page;
mod payload;
mod posts;
mod receive;
mod response;
mod rotation;
mod scopes;
mod server;
mod socket;
mod state;
mod transport;
mod world;

pub use browser::{Browser, InstallError};
pub use calls::{Call, Outcome};
pub use delivery::Delivery;
pub use fault::Fault;
pub use flaky::{Counts, Faults, Flaky};
pub use posts::WebhookPost;
pub use rotation::{GracePolicy, RefreshCounts, Rotation};
pub use transport::FakeTransport;
pub use world::{ConsentError, Org, Person, Who, Workspace, World};

use core::Core;
use server::Server;

/// A fake Slack with one app. Cheap to clone; all clones are the same Slack.
///
/// If it runs a server, the server stops when the last clone is dropped.
///
/// Ids are passed as text. A tenant is `T…` for a workspace and `E…` for an org-wide
/// installation. Methods panic if a text is not such an id.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use slack_installs::testing::FakeSlack;
///
/// let fake = FakeSlack::start().await?;
///
/// // Your app sends the browser to a URL such as this one.
/// let mut authorize = fake.environment().authorize_url();
/// authorize
///     .query_pairs_mut()
///     .append_pair("client_id", fake.client_id().as_str())
///     .append_pair("scope", "chat:write,commands")
///     .append_pair("redirect_uri", "http://localhost:3000/slack/oauth_redirect")
///     .append_pair("state", "1234");
///
/// // Ada clicks *Allow* there, and Slack redirects the browser to the callback.
/// let callback = fake.allow(&authorize, "U0ADMIN0001")?;
/// assert_eq!(callback.path(), "/slack/oauth_redirect");
/// assert!(callback.query_pairs().any(|(name, _)| name == "code"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct FakeSlack {
    core: Arc<Core>,
    /// Stops when the last clone is dropped. The server holds only the core.
    _server: Option<Arc<Server>>,
}

impl FakeSlack {
    /// Starts a fake with the [default world](World::default) on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// Returns an error if no port can be opened.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime with I/O enabled.
    pub async fn start() -> io::Result<Self> {
        Self::start_with(World::default()).await
    }

    /// Starts a fake with this world on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// Returns an error if no port can be opened.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime with I/O enabled.
    pub async fn start_with(world: World) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let core = Core::new(world, &format!("http://{}/", listener.local_addr()?));
        let server = Server::start(listener, Arc::clone(&core));
        Ok(Self {
            core,
            _server: Some(Arc::new(server)),
        })
    }

    /// Creates a fake with this world that opens no port.
    ///
    /// Call it by [`transport`](Self::transport) or [`handle`](Self::handle). Its host name never
    /// resolves.
    ///
    /// ```
    /// use slack_installs::testing::{FakeSlack, World};
    ///
    /// let fake = FakeSlack::in_process(World::default().with_seed(7));
    /// let same = FakeSlack::in_process(World::default().with_seed(7));
    /// assert_eq!(fake.client_id(), same.client_id());
    /// ```
    #[must_use]
    pub fn in_process(world: World) -> Self {
        Self {
            core: Core::new(world, "https://fake-slack.invalid/"),
            _server: None,
        }
    }

    /// Returns the environment with the URLs of this Slack.
    #[must_use]
    pub fn environment(&self) -> Environment {
        self.core.environment.clone()
    }

    /// Returns a transport that calls this Slack in process, with or without a server.
    #[must_use]
    pub fn transport(&self) -> FakeTransport {
        FakeTransport(Arc::clone(&self.core))
    }

    /// Handles a request and returns the response that the server would send.
    ///
    /// If a fault loses the response, returns `None`. Does not wait for a fault's delay.
    #[must_use]
    pub fn handle(&self, request: &Request<Bytes>) -> Option<Response<Bytes>> {
        let arrival = self.core.arrive(request);
        self.core.carry_out(request, &arrival)
    }

    /// Returns the app's id.
    #[must_use]
    pub fn app_id(&self) -> AppId {
        self.core.app.id.clone()
    }

    /// Returns the app's client id.
    #[must_use]
    pub fn client_id(&self) -> ClientId {
        self.core.app.client_id.clone()
    }

    /// Returns the app's client secret.
    #[must_use]
    pub fn client_secret(&self) -> ClientSecret {
        ClientSecret::new(&*self.core.app.client_secret).expect("a generated secret is valid")
    }

    /// Returns the app's signing secret.
    #[must_use]
    pub fn signing_secret(&self) -> SigningSecret {
        SigningSecret::new(&*self.core.app.signing_secret).expect("a generated secret is valid")
    }

    /// Advances this Slack's clock, and with it every [`clock`](Self::clock) that it returned.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.core.ahead.fetch_add(by, Ordering::SeqCst);
    }

    /// Returns this Slack's clock, for the app under test.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.core.clock.clone()
    }

    /// Enables token rotation for the app, or changes its rules.
    ///
    /// Tokens from before stay long-lived until they are exchanged, or the app is reinstalled.
    pub fn rotate_tokens(&self, rotation: Rotation) {
        self.core.state().rotation = Some(rotation);
    }

    /// Returns how often refresh tokens were used so far.
    #[must_use]
    pub fn refresh_counts(&self) -> RefreshCounts {
        self.core.state().pairs.counts()
    }

    /// Returns how often this refresh token was used.
    #[must_use]
    pub fn uses(&self, refresh_token: &str) -> usize {
        self.core.state().pairs.uses(refresh_token)
    }

    /// Returns whether the Web API currently accepts this access token.
    #[must_use]
    pub fn is_live(&self, access_token: &str) -> bool {
        let state = self.core.state();
        state.holder(access_token, self.core.clock.now()).is_ok()
    }

    /// Returns whether a refresh with this token would currently return a pair.
    ///
    /// The pair is valid, except on a second use under [`GracePolicy::FirstOnly`].
    #[must_use]
    pub fn is_refreshable(&self, refresh_token: &str) -> bool {
        let state = self.core.state();
        let grace = state.rotation.as_ref().map(|rotation| rotation.grace);
        let now = self.core.clock.now();
        state
            .pairs
            .is_refreshable(refresh_token, grace.unwrap_or_default(), now)
    }

    /// Returns the number of valid access tokens in the current chain of the bot or of a user.
    #[must_use]
    pub fn live_tokens(&self, tenant: &str, user: Option<&str>) -> usize {
        let state = self.core.state();
        let chain = state.chain_id(&key(tenant), user.map(user_id).as_ref());
        chain.map_or(0, |chain| state.pairs.live(chain, self.core.clock.now()))
    }

    /// Clicks *Allow* on the page at this authorize URL, as this person.
    ///
    /// Returns the callback URL, to which Slack redirects the browser. It has a `state` only if the
    /// authorize URL has one.
    ///
    /// # Errors
    ///
    /// Returns [`ConsentError`] if the page shows an error, or the person may not install the app
    /// there.
    pub fn allow(&self, authorize: &Url, who: impl Into<Who>) -> Result<Url, ConsentError> {
        let ask = self.core.ask(authorize)?;
        self.core
            .state()
            .allow(&ask, &who.into(), self.core.clock.now())
    }

    /// Clicks *Cancel* on the page at this authorize URL, and returns the callback URL.
    ///
    /// # Errors
    ///
    /// Returns [`ConsentError`] if the page shows an error.
    pub fn cancel(&self, authorize: &Url) -> Result<Url, ConsentError> {
        self.core.ask(authorize).map(|ask| ask.cancelled())
    }

    /// Installs the app from Slack's own pages, as this person.
    ///
    /// Returns the callback URL. It has a code, and an empty state that the app never issued.
    ///
    /// # Errors
    ///
    /// Returns [`ConsentError`] if the person may not install the app there, or the redirect URI is
    /// not allowed.
    pub fn unsolicited(
        &self,
        redirect_uri: &Url,
        scopes: &str,
        who: impl Into<Who>,
    ) -> Result<Url, ConsentError> {
        let mut authorize = self.core.environment.authorize_url();
        authorize
            .query_pairs_mut()
            .append_pair("client_id", self.core.app.client_id.as_str())
            .append_pair("scope", scopes)
            .append_pair("redirect_uri", redirect_uri.as_str())
            .append_pair("state", "");
        self.allow(&authorize, who)
    }

    /// Removes the app from this tenant, as an admin does. Returns whether it was installed.
    ///
    /// All its tokens become invalid. The events `tokens_revoked` and `app_uninstalled` are queued
    /// for [`take_events`](Self::take_events).
    pub fn uninstall(&self, tenant: &str) -> bool {
        self.core
            .state()
            .uninstall(&key(tenant), self.core.clock.now())
    }

    /// Revokes a person's own authorization. Returns whether there was one.
    ///
    /// The person's token becomes invalid. The event `tokens_revoked` is queued for
    /// [`take_events`](Self::take_events).
    pub fn revoke_user(&self, tenant: &str, user: &str) -> bool {
        self.core
            .state()
            .revoke(&key(tenant), Some(&user_id(user)), self.core.clock.now())
    }

    /// Withholds these scopes, as an admin's policy does. Installations succeed without them.
    pub fn withhold(&self, scopes: impl Into<Scopes>) {
        self.core.state().withheld = scopes.into();
    }

    /// Adds a workspace, or renames it, while the fake runs.
    pub fn add_workspace(&self, workspace: Workspace) {
        self.core.state().world.add_workspace(workspace, None);
    }

    /// Adds a person to a workspace, or changes the person's flags.
    ///
    /// If the person is deactivated, their user tokens are revoked, as Slack does.
    pub fn add_person(&self, team: &str, person: Person) {
        let mut state = self.core.state();
        if person.deleted {
            state.revoke_everywhere(&person.id, self.core.clock.now());
        }
        state.world.add_person(person, &[team_id(team)]);
    }

    /// Moves a workspace into an organisation. The workspace keeps its id and its tokens.
    ///
    /// # Panics
    ///
    /// Panics if the workspace or the organisation does not exist.
    pub fn join_org(&self, team: &str, org: &str) {
        let org = EnterpriseId::new(org).expect("an organisation's id has the form `E…`");
        self.core.state().world.join_org(&team_id(team), &org);
    }

    /// Returns whether the app is installed in this tenant.
    #[must_use]
    pub fn is_installed(&self, tenant: &str) -> bool {
        self.core.state().is_installed(&key(tenant))
    }

    /// Returns the bot's token in this tenant.
    #[must_use]
    pub fn bot_token(&self, tenant: &str) -> Option<AccessToken> {
        let state = self.core.state();
        state.token(&key(tenant), None).map(token)
    }

    /// Returns the bot's user id in this tenant, even if the app is not installed there.
    #[must_use]
    pub fn bot_user(&self, tenant: &str) -> UserId {
        self.core.state().bot_user(&key(tenant)).user
    }

    /// Returns a person's own token in this tenant.
    #[must_use]
    pub fn user_token(&self, tenant: &str, user: &str) -> Option<AccessToken> {
        let state = self.core.state();
        state.token(&key(tenant), Some(&user_id(user))).map(token)
    }

    /// Returns every secret made so far: tokens, codes, the secret ends of webhook URLs and
    /// `response_url`s, and the app's own secrets.
    ///
    /// The list includes invalid ones. A test can search logs and files for these secrets.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        self.core.state().mint.secrets().to_vec()
    }

    /// Returns the number of calls of this Web API method, failed ones included.
    #[must_use]
    pub fn calls(&self, method: &str) -> usize {
        self.core
            .state()
            .calls
            .all()
            .iter()
            .filter(|call| call.method == method)
            .count()
    }

    /// Returns the number of calls of this method with this token, which may be invalid now.
    #[must_use]
    pub fn calls_with(&self, method: &str, token: &str) -> usize {
        let state = self.core.state();
        let Some(number) = state.former_holder(token).map(|holder| holder.number) else {
            return 0;
        };
        let calls = state.calls.all().iter();
        calls
            .filter(|call| call.method == method && call.token == Some(number))
            .count()
    }

    /// Returns every Web API call so far, in order of arrival, with its arguments.
    #[must_use]
    pub fn call_log(&self) -> Vec<Call> {
        self.core.state().calls.all().to_vec()
    }

    /// Makes the next calls of this Web API method fail.
    ///
    /// The faults of one method apply one after the other, in the order of injection.
    pub fn inject(&self, method: &str, fault: Fault) {
        self.core.state().faults.inject(method, fault);
    }

    /// Removes all pending faults.
    pub fn clear_faults(&self) {
        self.core.state().faults.clear();
    }

    /// POSTs this delivery to the app under test, and returns the response of any status.
    ///
    /// Follows no redirect.
    ///
    /// # Errors
    ///
    /// Returns `InvalidInput` if the URL is not `http` on a loopback address. Returns another error
    /// if no response arrives within 30 s.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the app may have received the delivery.
    pub async fn deliver(&self, url: &Url, delivery: &Delivery) -> io::Result<Response<Bytes>> {
        delivery::send(delivery.request(url)).await
    }

    /// Sends a request unchanged to the app under test.
    ///
    /// Use it for a GET of the install page, or for a delivery that you tampered with. Follows no
    /// redirect.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`deliver`](Self::deliver).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the app may have received the request.
    pub async fn send(&self, request: Request<Bytes>) -> io::Result<Response<Bytes>> {
        delivery::send(request).await
    }
}

impl fmt::Debug for FakeSlack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = self.core.environment.base().as_str();
        f.debug_struct("FakeSlack")
            .field("base", &base)
            .finish_non_exhaustive()
    }
}

/// Parses a tenant's id, `T…` or `E…`.
fn key(tenant: &str) -> InstallationKey {
    let key = if tenant.starts_with('E') {
        EnterpriseId::new(tenant).map(InstallationKey::org)
    } else {
        TeamId::new(tenant).map(InstallationKey::workspace)
    };
    key.expect("a tenant's id has the form `T…` or `E…`")
}

fn team_id(id: &str) -> TeamId {
    TeamId::new(id).expect("a workspace's id has the form `T…`")
}

fn user_id(id: &str) -> UserId {
    UserId::new(id).expect("a user id has the form `U…` or `W…`")
}

fn token(token: &str) -> AccessToken {
    AccessToken::new(token).expect("a generated token is valid")
}
