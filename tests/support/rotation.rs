//! A fake Slack that rotates tokens, a store, and rotators over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use slack_installs::backend::{Backend, MemoryBackend};
use slack_installs::secret::{Code, RefreshToken};
use slack_installs::slack::{ClientCredentials, SlackClient, Transport, TransportError};
use slack_installs::store::{
    Chain, ChainKey, Credential, Error, ListCursor, RotationStore, StoredChain,
};
use slack_installs::testing::{FakeSlack, FakeTransport, Rotation, World};
use slack_installs::testing::{Faults, Flaky};
use slack_installs::{
    Clock, EncryptedStore, Grant, Installation, InstallationKey, InstallationStore as _,
    LocalKeyProvider, RotationConfig, TeamId, TokenRotator, UserId,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::checks::Database;
use super::providers::master_key;

pub(crate) type Store = EncryptedStore<Arc<Flaky<Arc<dyn Backend>>>>;

/// A Slack, and what one process has of an app.
pub(crate) struct Stage {
    pub(crate) fake: FakeSlack,
    pub(crate) store: Store,
    database: Database,
}

pub(crate) const ALPHA: &str = "T0ALPHA0001";
pub(crate) const ADMIN: &str = "U0ADMIN0001";
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const REFRESH: &str = "oauth.v2.access";

impl Stage {
    /// On tokio's clock, which a paused test moves.
    pub(crate) async fn new(rotation: Rotation) -> Self {
        let stage = Self::unrotated().await;
        stage.fake.rotate_tokens(rotation);
        stage
    }

    /// With long-lived tokens.
    pub(crate) async fn unrotated() -> Self {
        Self::in_world(World::default()).await
    }

    /// With long-lived tokens, where these people are.
    pub(crate) async fn in_world(world: World) -> Self {
        let start = Instant::now();
        let clock = Clock::from_fn(move || epoch() + start.elapsed());
        let fake = FakeSlack::in_process(world.with_seed(1).with_clock(clock));
        let backend = Arc::new(MemoryBackend::default());
        Self::process_of(fake, backend.into()).await
    }

    /// On a clock that stands unless the test moves it, for databases that take their own time;
    /// as an app that nobody else has, since tests share them.
    pub(crate) async fn on(database: Database, rotation: Rotation) -> Self {
        let clock = Clock::from_fn(epoch);
        let fake = FakeSlack::in_process(World::default().with_clock(clock));
        fake.rotate_tokens(rotation);
        Self::process_of(fake, database).await
    }

    /// Another process of the app, with the same Slack and the same database.
    pub(crate) async fn another(&self) -> Self {
        Self::process_of(self.fake.clone(), self.database.clone()).await
    }

    async fn process_of(fake: FakeSlack, database: Database) -> Self {
        let backend = Arc::clone(&database.backend);
        let backend = Arc::new(Flaky::new(backend, Faults::none()));
        let provider = LocalKeyProvider::new(master_key());
        let store = EncryptedStore::open(backend, provider, fake.client_id()).await;
        let store = database.process(store.expect("the database answers"));
        Self {
            fake,
            store,
            database,
        }
    }

    pub(crate) fn slack(&self) -> SlackClient {
        self.slack_over(self.fake.transport())
    }

    pub(crate) fn slack_over(&self, transport: impl Transport) -> SlackClient {
        SlackClient::with_transport(self.fake.environment(), transport)
            .with_clock(self.fake.clock())
    }

    pub(crate) fn config(&self) -> RotationConfig {
        RotationConfig::new(ClientCredentials {
            client_id: self.fake.client_id(),
            client_secret: self.fake.client_secret(),
        })
    }

    /// One process's rotator.
    pub(crate) fn rotator(&self) -> TokenRotator {
        self.rotator_with(self.config())
    }

    pub(crate) fn rotator_with(&self, config: RotationConfig) -> TokenRotator {
        self.rotator_over(config, self.fake.transport())
    }

    pub(crate) fn rotator_over(
        &self,
        config: RotationConfig,
        transport: impl Transport,
    ) -> TokenRotator {
        let slack = self.slack_over(transport);
        TokenRotator::new(config, slack, self.store.clone()).with_clock(self.fake.clock())
    }

    /// A rotator whose calls are held on their way back from Slack.
    pub(crate) fn held(&self) -> (TokenRotator, Held) {
        let held = Held::new(self.fake.transport());
        (self.rotator_over(self.config(), held.clone()), held)
    }

    /// How often this process has asked the database.
    pub(crate) fn reads(&self) -> u64 {
        self.store.backend().counts().reads
    }

    /// A process whose task dies at the update after this many.
    pub(crate) fn dying(&self, after: usize) -> TokenRotator {
        let store = Dying(self.store.clone(), AtomicUsize::new(after));
        TokenRotator::new(self.config(), self.slack(), store).with_clock(self.fake.clock())
    }

    /// Ada installs the app in a workspace, and it is stored.
    pub(crate) async fn install(&self, team: &str, scopes: &str, user_scopes: &str) {
        let mut url = self.fake.environment().authorize_url();
        url.query_pairs_mut()
            .append_pair("client_id", self.fake.client_id().as_str())
            .append_pair("scope", scopes)
            .append_pair("user_scope", user_scopes)
            .append_pair("redirect_uri", REDIRECT)
            .append_pair("team", team);
        let who = slack_installs::testing::Who::user(ADMIN).at(team);
        let callback = self.fake.allow(&url, who).expect("Ada may install");
        let code = callback.query_pairs().find(|(name, _)| name == "code");
        let code = Code::new(code.expect("a code").1).expect("plausible");
        let app = self.config().credentials;
        let issued = self.slack().oauth_v2_access(&app, &code, REDIRECT).await;
        let issued = issued.expect("the fake exchanges");
        let mut installation = Installation::new(issued.app_id, issued.home, issued.at);
        installation.bot = issued.bot;
        installation.user = issued.user;
        self.store.store(&installation).await.expect("stored");
    }

    pub(crate) async fn chain(&self, credential: Credential) -> Option<StoredChain> {
        let key = ChainKey {
            credential,
            tenant: alpha(),
        };
        self.store.chain(&key).await.expect("the store answers")
    }

    pub(crate) async fn bot_chain(&self) -> StoredChain {
        self.chain(Credential::Bot)
            .await
            .expect("the bot is installed")
    }

    /// Past the end of the token.
    pub(crate) fn expire(&self) {
        self.fake.advance(13 * HOUR);
    }

    /// Into the time in which a token is due and still serves.
    pub(crate) fn soften(&self) {
        self.fake.advance(11 * HOUR);
    }

    pub(crate) fn refreshes(&self) -> usize {
        self.fake.refresh_counts().calls
    }
}

pub(crate) fn alpha() -> InstallationKey {
    InstallationKey::workspace(TeamId::new(ALPHA).expect("an id"))
}

pub(crate) fn admin() -> Credential {
    Credential::User(UserId::new(ADMIN).expect("an id"))
}

/// Until every task has come to rest, without moving the clock.
pub(crate) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn refresh_token(stored: &StoredChain) -> &RefreshToken {
    stored
        .grant
        .refresh_token
        .as_ref()
        .expect("a rotating chain")
}

/// Keeps Slack's answers to refreshes until they are released: what Slack did is done, and the
/// caller does not know yet.
#[derive(Clone, Debug)]
pub(crate) struct Held(Arc<Hold>);

#[derive(Debug)]
struct Hold {
    inner: FakeTransport,
    answered: Semaphore,
    released: Semaphore,
}

impl Held {
    fn new(inner: FakeTransport) -> Self {
        Self(Arc::new(Hold {
            inner,
            answered: Semaphore::new(0),
            released: Semaphore::new(0),
        }))
    }

    /// Waits until Slack has answered a refresh.
    pub(crate) async fn answered(&self) {
        let answered = self.0.answered.acquire().await;
        answered.expect("never closed").forget();
    }

    /// Lets this answer go, and all that follow.
    pub(crate) fn release(&self) {
        self.0.released.add_permits(Semaphore::MAX_PERMITS);
    }
}

#[async_trait]
impl Transport for Held {
    async fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let is_refresh = request.uri().path().ends_with(REFRESH);
        let answer = self.0.inner.send(request).await;
        if is_refresh {
            self.0.answered.add_permits(1);
            drop(self.0.released.acquire().await.expect("never closed"));
        }
        answer
    }
}

/// A store under which one update panics.
#[derive(Debug)]
struct Dying(Store, AtomicUsize);

#[async_trait]
impl RotationStore for Dying {
    async fn chain(&self, key: &ChainKey) -> Result<Option<StoredChain>, Error> {
        self.0.chain(key).await
    }

    async fn update(
        &self,
        key: &ChainKey,
        offered: Option<&Grant>,
        decide: &mut (dyn for<'c> FnMut(Option<&'c Chain>) -> Option<Chain> + Send),
    ) -> Result<Option<StoredChain>, Error> {
        let left = self.1.fetch_sub(1, Ordering::SeqCst);
        if left == 0 {
            // On purpose, and without a word.
            std::panic::resume_unwind(Box::new("the task dies"));
        }
        self.0.update(key, offered, decide).await
    }

    async fn chains(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<(Vec<ChainKey>, Option<ListCursor>), Error> {
        self.0.chains(from, limit).await
    }

    async fn due(
        &self,
        now: SystemTime,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<(Vec<ChainKey>, Option<ListCursor>), Error> {
        self.0.due(now, from, limit).await
    }

    async fn sweep(&self) -> Result<usize, Error> {
        self.0.sweep().await
    }
}

/// Rewrites answers on their way.
pub(crate) struct Rewritten<F>(pub(crate) FakeTransport, pub(crate) F);

impl<F> std::fmt::Debug for Rewritten<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rewritten")
    }
}

#[async_trait]
impl<F> Transport for Rewritten<F>
where
    F: Fn(&str, Bytes) -> Bytes + Send + Sync + 'static,
{
    async fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let path = request.uri().path().to_owned();
        let answer = self.0.send(request).await?;
        Ok(answer.map(|body| (self.1)(&path, body)))
    }
}

/// When each of these tests begins, on Slack's clock.
fn epoch() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000)
}

const REDIRECT: &str = "http://localhost:3000/slack/oauth_redirect";
