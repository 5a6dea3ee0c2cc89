//! A fake Slack, for your own tests.
//!
//! [`FakeSlack`] is a Slack with a few people in it: it shows the authorize page, exchanges codes
//! for tokens, answers the Web API calls that installations need, sends your app signed events
//! and commands, counts what your app asked, and fails on demand. It runs on loopback or in
//! process, and keeps everything in memory.
//!
//! It enforces what Slack's documentation says: codes work once and for ten minutes, the redirect
//! URI must be repeated exactly, a reinstalled bot keeps its token, a revoked token is dead. Where
//! the documentation is silent, the doc comments here say what was chosen. Tokens rotate
//! once [`FakeSlack::rotate_tokens`] says so.
//!
//! An app over it, and the start of its install flow:
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
//! Over HTTP, a test gets the install page with [`FakeSlack::send`], passes its `Location` to
//! [`FakeSlack::allow`], and gets the URL that this returns, with the cookie of the first
//! response. Then [`FakeSlack::deliver`] sends signed commands and events, and
//! [`FakeSlack::take_events`] has those that Slack would send by itself.
//!
//! Two things differ from Slack on purpose. A `response_url` is on the fake's own host, so that
//! what your app answers stays on this machine ([`FakeSlack::replies`]). And redirect URLs may be
//! plain `http` on loopback, so that your app needs no certificate.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use url::Url;

use crate::clock::Clock;
use crate::installation::Scopes;
use crate::secret::{AccessToken, ClientSecret, SigningSecret};
use crate::slack::Environment;
use crate::tenant::{AppId, ClientId, EnterpriseId, InstallationKey, TeamId, UserId};

mod answer;
mod api;
mod app;
mod ask;
mod authorize;
mod calls;
mod core;
mod delivery;
mod fault;
mod mint;
mod page;
mod payload;
mod rotation;
mod server;
mod state;
mod transport;
mod world;

pub use ask::ConsentError;
pub use calls::{Call, Outcome};
pub use delivery::{Delivery, DeliveryError};
pub use fault::Fault;
pub use rotation::{GracePolicy, RefreshCounts, Rotation};
pub use transport::FakeTransport;
pub use world::{Org, Person, Who, Workspace, World};

use core::Core;
use server::Server;

/// A fake Slack with one app. Cheap to clone; the clones are one Slack. A server that it started
/// ends when the last clone is dropped.
///
/// Ids are plain text here: a tenant is `T…` for a workspace and `E…` for an org-wide
/// installation. A text that is no such id panics.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use slack_installs::testing::FakeSlack;
///
/// let fake = FakeSlack::start().await?;
///
/// // Your app sends the browser to a URL like this one …
/// let mut authorize = fake.environment().authorize_url();
/// authorize
///     .query_pairs_mut()
///     .append_pair("client_id", fake.client_id().as_str())
///     .append_pair("scope", "chat:write,commands")
///     .append_pair("redirect_uri", "http://localhost:3000/slack/oauth_redirect")
///     .append_pair("state", "1234");
///
/// // … where Ada clicks *Allow*, and the browser comes back.
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
    /// Ends with the last clone; the server itself holds the core only.
    _server: Option<Arc<Server>>,
}

impl FakeSlack {
    /// A fake with the [default world](World::default), serving on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// If no port can be opened.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    pub async fn start() -> io::Result<Self> {
        Self::start_with(World::default()).await
    }

    /// A fake with this world, serving on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// If no port can be opened.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    pub async fn start_with(world: World) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let core = Core::new(world, &format!("http://{}/", listener.local_addr()?));
        let server = Server::start(listener, Arc::clone(&core));
        Ok(Self {
            core,
            _server: Some(Arc::new(server)),
        })
    }

    /// A fake with this world that opens no port: reach it by [`transport`](Self::transport) or
    /// [`handle`](Self::handle). Its host name never resolves.
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

    /// Where this Slack is.
    #[must_use]
    pub fn environment(&self) -> Environment {
        self.core.environment.clone()
    }

    /// Reaches this Slack in process, whether it serves or not.
    #[must_use]
    pub fn transport(&self) -> FakeTransport {
        FakeTransport(Arc::clone(&self.core))
    }

    /// Answers a request as the server would; `None` where a fault loses the answer. A fault's
    /// delay is not waited for.
    #[must_use]
    pub fn handle(&self, request: &Request<Bytes>) -> Option<Response<Bytes>> {
        let visit = self.core.arrive(request);
        self.core.carry_out(request, &visit)
    }

    /// The app's id.
    #[must_use]
    pub fn app_id(&self) -> AppId {
        self.core.app.id.clone()
    }

    /// The app's client id.
    #[must_use]
    pub fn client_id(&self) -> ClientId {
        self.core.app.client_id.clone()
    }

    /// The app's client secret.
    #[must_use]
    pub fn client_secret(&self) -> ClientSecret {
        ClientSecret::new(&*self.core.app.client_secret).expect("a made-up secret is plausible")
    }

    /// The app's signing secret.
    #[must_use]
    pub fn signing_secret(&self) -> SigningSecret {
        SigningSecret::new(&*self.core.app.signing_secret).expect("a made-up secret is plausible")
    }

    /// Moves this Slack's clock on, and with it every [`clock`](Self::clock) taken from it.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.core.ahead.fetch_add(by, Ordering::SeqCst);
    }

    /// This Slack's clock, to run the app under test by it.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.core.clock.clone()
    }

    /// The app turns token rotation on, or rotates by other rules from now on. Tokens that were
    /// issued before stay long-lived until they are exchanged, or the app is reinstalled.
    pub fn rotate_tokens(&self, rotation: Rotation) {
        self.core.state().rotation = Some(rotation);
    }

    /// How often refresh tokens were used so far.
    #[must_use]
    pub fn refresh_counts(&self) -> RefreshCounts {
        self.core.state().pairs.counts()
    }

    /// How often this refresh token was used.
    #[must_use]
    pub fn uses(&self, refresh_token: &str) -> usize {
        self.core.state().pairs.uses(refresh_token)
    }

    /// Whether a Web API call with this access token would be taken now.
    #[must_use]
    pub fn is_live(&self, access_token: &str) -> bool {
        let state = self.core.state();
        state.holder(access_token, self.core.clock.now()).is_ok()
    }

    /// Whether a use of this refresh token would bring a pair now; one that lives, unless only
    /// the first does.
    #[must_use]
    pub fn is_refreshable(&self, refresh_token: &str) -> bool {
        let state = self.core.state();
        let grace = state.rotation.as_ref().map(|rotation| rotation.grace);
        let now = self.core.clock.now();
        state
            .pairs
            .is_refreshable(refresh_token, grace.unwrap_or_default(), now)
    }

    /// How many access tokens live of the bot's, or of a user's, present chain.
    #[must_use]
    pub fn live_tokens(&self, tenant: &str, user: Option<&str>) -> usize {
        let state = self.core.state();
        let chain = state.chain_id(&key(tenant), user.map(user_id).as_ref());
        chain.map_or(0, |chain| state.pairs.live(chain, self.core.clock.now()))
    }

    /// Somebody clicks *Allow* on the page at this authorize URL: the callback URL to which the
    /// browser is sent. Without a `state` in the authorize URL there is none in the callback.
    ///
    /// # Errors
    ///
    /// [`ConsentError`] if the page shows an error instead, or they may not install there.
    pub fn allow(&self, authorize: &Url, who: impl Into<Who>) -> Result<Url, ConsentError> {
        let ask = self.core.ask(authorize)?;
        self.core
            .state()
            .allow(&ask, &who.into(), self.core.clock.now())
    }

    /// Somebody clicks *Cancel*: the callback URL.
    ///
    /// # Errors
    ///
    /// [`ConsentError`] if the page shows an error instead.
    pub fn cancel(&self, authorize: &Url) -> Result<Url, ConsentError> {
        self.core.ask(authorize).map(|ask| ask.cancelled())
    }

    /// Somebody installs the app from Slack's own pages: the callback URL, with a code and an
    /// empty state that the app never issued.
    ///
    /// # Errors
    ///
    /// [`ConsentError`] if they may not install there, or the redirect URI is not allowed.
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

    /// An admin removes the app from this tenant: all its tokens die, and `tokens_revoked` and
    /// `app_uninstalled` wait in [`take_events`](Self::take_events). Whether it was installed.
    pub fn uninstall(&self, tenant: &str) -> bool {
        self.core
            .state()
            .uninstall(&key(tenant), self.core.clock.now())
    }

    /// A person withdraws their own authorization: their token dies, and `tokens_revoked` waits
    /// in [`take_events`](Self::take_events). Whether they had one.
    pub fn revoke_user(&self, tenant: &str, user: &str) -> bool {
        self.core
            .state()
            .revoke(&key(tenant), Some(&user_id(user)), self.core.clock.now())
    }

    /// An admin lets nobody grant these scopes: installations go through without them.
    pub fn withhold(&self, scopes: impl Into<Scopes>) {
        self.core.state().withheld = scopes.into();
    }

    /// Adds a workspace, or replaces one's name, while the fake runs.
    pub fn add_workspace(&self, workspace: Workspace) {
        self.core.state().world.add_workspace(workspace, None);
    }

    /// Adds a person to a workspace, or changes their flags. Of somebody who is deactivated, Slack
    /// revokes the user tokens.
    pub fn add_person(&self, team: &str, person: Person) {
        let mut state = self.core.state();
        if person.deleted {
            state.revoke_everywhere(&person.id, self.core.clock.now());
        }
        state.world.add_person(person, &[team_id(team)]);
    }

    /// A workspace joins an organisation. It keeps its id, and its tokens stay good.
    ///
    /// # Panics
    ///
    /// If there is no such workspace or organisation.
    pub fn join_org(&self, team: &str, org: &str) {
        let org = EnterpriseId::new(org).expect("an organisation's id in a test is well formed");
        self.core.state().world.join_org(&team_id(team), &org);
    }

    /// Whether the app is installed in this tenant.
    #[must_use]
    pub fn is_installed(&self, tenant: &str) -> bool {
        self.core.state().is_installed(&key(tenant))
    }

    /// The bot's token in this tenant.
    #[must_use]
    pub fn bot_token(&self, tenant: &str) -> Option<AccessToken> {
        let state = self.core.state();
        state.token(&key(tenant), None).map(token)
    }

    /// The bot's user in this tenant, installed or not.
    #[must_use]
    pub fn bot_user(&self, tenant: &str) -> UserId {
        self.core.state().bot_user(&key(tenant)).user
    }

    /// A person's own token in this tenant.
    #[must_use]
    pub fn user_token(&self, tenant: &str, user: &str) -> Option<AccessToken> {
        let state = self.core.state();
        state.token(&key(tenant), Some(&user_id(user))).map(token)
    }

    /// Every secret made so far, dead ones too: tokens, codes, webhook URLs, the app's own. A test
    /// can look for them in logs and files where none may be.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        self.core.state().mint.secrets().to_vec()
    }

    /// How many calls of this Web API method arrived, failed ones too.
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

    /// How many calls of this method arrived with this token, which may be dead by now.
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

    /// Every Web API call so far, in order of arrival.
    #[must_use]
    pub fn call_log(&self) -> Vec<Call> {
        self.core.state().calls.all().to_vec()
    }

    /// What the app posted to `response_url`s, in order of arrival.
    #[must_use]
    pub fn replies(&self) -> Vec<Value> {
        self.core.state().replies.clone()
    }

    /// Makes the next calls of this Web API method go wrong. Faults of one method strike one after
    /// the other.
    pub fn inject(&self, method: &str, fault: Fault) {
        self.core.state().faults.inject(method, fault);
    }

    /// Forgets every fault that has not struck.
    pub fn clear_faults(&self) {
        self.core.state().faults.clear();
    }

    /// POSTs this to the app under test and returns its answer, of whatever status. Redirects are
    /// not followed.
    ///
    /// Dropped, the app may or may not have got it.
    ///
    /// # Errors
    ///
    /// [`DeliveryError`] if the URL is not `http` on a loopback address, or there is no answer
    /// within 30 s.
    pub async fn deliver(
        &self,
        url: &Url,
        delivery: &Delivery,
    ) -> Result<Response<Bytes>, DeliveryError> {
        delivery::send(delivery.request(url)).await
    }

    /// Sends a request as it is, by its own method: a GET of the install page, or a delivery that
    /// was tampered with. Redirects are not followed.
    ///
    /// Dropped, the app may or may not have got it.
    ///
    /// # Errors
    ///
    /// As [`deliver`](Self::deliver).
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, DeliveryError> {
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

/// The key of `T…` or `E…`.
fn key(tenant: &str) -> InstallationKey {
    match tenant.starts_with('E') {
        true => EnterpriseId::new(tenant).map(InstallationKey::org),
        false => TeamId::new(tenant).map(InstallationKey::workspace),
    }
    .expect("a tenant in a test is a workspace's id or an organisation's")
}

fn team_id(id: &str) -> TeamId {
    TeamId::new(id).expect("a workspace's id in a test is well formed")
}

fn user_id(id: &str) -> UserId {
    UserId::new(id).expect("a user id in a test is well formed")
}

fn token(token: &str) -> AccessToken {
    AccessToken::new(token).expect("a made-up token is plausible")
}
