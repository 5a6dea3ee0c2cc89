//! A fake Slack that rotates tokens, a store, and rotators over it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use slack_installs::backend::{Backend, MemoryBackend};
use slack_installs::rotation::{Error as RotationError, Token, WorkerConfig};
use slack_installs::secret::{Code, RefreshToken};
use slack_installs::slack::{SlackClient, Transport};
use slack_installs::store::{Chain, ChainKey, Credential, RotationStore, StoredChain};
use slack_installs::testing::{FakeSlack, Fault, GracePolicy, Person, Rotation, Workspace, World};
use slack_installs::testing::{Faults, Flaky};
use slack_installs::{
    Clock, EncryptedStore, Installation, InstallationKey, InstallationStore as _, KeyProvider,
    LocalKeyProvider, RotationConfig, StoredInstallation, TeamId, TokenRotator, UserId,
};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::checks::Database;
use super::hooked_chains::{HookedChains, Way};
use super::hooked_transport::{CallHooks, HookedTransport};
use super::providers::master_key;
use crate::support::app::credentials;

pub(crate) type Store = EncryptedStore<Arc<Flaky<Arc<dyn Backend>>>>;

/// A fake Slack, and what one process of an app has.
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
    /// Creates a stage on tokio's clock, which a paused test moves.
    pub(crate) async fn new(rotation: Rotation) -> Self {
        let stage = Self::unrotated().await;
        stage.fake.rotate_tokens(rotation);
        stage
    }

    /// Creates a stage where Alpha has installed the app.
    pub(crate) async fn installed() -> Self {
        Self::installed_with(Rotation::default()).await
    }

    /// Creates a stage where Alpha has installed the app. The policy says which pairs Slack keeps
    /// alive after a refresh.
    pub(crate) async fn installed_under(policy: GracePolicy) -> Self {
        let rotation = Rotation::default();
        Self::installed_with(Rotation { policy, ..rotation }).await
    }

    pub(crate) async fn installed_with(rotation: Rotation) -> Self {
        let stage = Self::new(rotation).await;
        stage.install(ALPHA, "chat:write", "").await;
        stage
    }

    /// Creates a stage with long-lived tokens.
    pub(crate) async fn unrotated() -> Self {
        Self::in_world(World::default()).await
    }

    /// Creates a stage with long-lived tokens and the workspaces of this world.
    pub(crate) async fn in_world(world: World) -> Self {
        let start = Instant::now();
        let clock = Clock::from_fn(move || epoch() + start.elapsed());
        let fake = FakeSlack::in_process(world.with_seed(1).with_clock(clock));
        let backend = Arc::new(MemoryBackend::default());
        Self::process_of(fake, backend.into()).await
    }

    /// Creates a stage whose clock moves only when the test moves it, because a real database takes
    /// real time. The app's id is unique, because tests share databases.
    pub(crate) async fn on(database: Database, rotation: Rotation) -> Self {
        let clock = Clock::from_fn(epoch);
        let fake = FakeSlack::in_process(World::default().with_clock(clock));
        fake.rotate_tokens(rotation);
        Self::process_of(fake, database).await
    }

    /// Starts another process of the app, with the same Slack and the same database.
    pub(crate) async fn another(&self) -> Self {
        Self::process_of(self.fake.clone(), self.database.clone()).await
    }

    async fn process_of(fake: FakeSlack, database: Database) -> Self {
        let provider = LocalKeyProvider::new(master_key());
        Self::process_with(fake, database, provider).await
    }

    /// Starts another process of the app, whose keys come from this provider.
    pub(crate) async fn another_with(&self, provider: impl KeyProvider) -> Self {
        Self::process_with(self.fake.clone(), self.database.clone(), provider).await
    }

    async fn process_with(fake: FakeSlack, database: Database, provider: impl KeyProvider) -> Self {
        let backend = Arc::clone(&database.backend);
        let backend = Arc::new(Flaky::new(backend, Faults::none()));
        let store = EncryptedStore::open(backend, provider, fake.client_id()).await;
        let store = database.process(store.expect("the database is up"));
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
        RotationConfig::new(credentials(&self.fake))
    }

    /// Returns the rotator of one process.
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

    /// Returns a rotator that gets Slack's responses only when the test releases them.
    pub(crate) fn held(&self) -> (TokenRotator, Held) {
        let hold = Hold {
            answered: Semaphore::new(0),
            released: Semaphore::new(0),
        };
        let held = HookedTransport::over(self.fake.transport(), hold);
        (self.rotator_over(self.config(), held.clone()), held)
    }

    /// Returns the clock of a node that is this much ahead.
    pub(crate) fn ahead(&self, by: Duration) -> Clock {
        let clock = self.fake.clock();
        Clock::from_fn(move || clock.now() + by)
    }

    /// Returns how often this process has read from the database.
    pub(crate) fn reads(&self) -> u64 {
        self.store.backend().counts().reads
    }

    /// Returns the rotator of a process that uses this store.
    pub(crate) fn rotator_on(&self, store: impl RotationStore) -> TokenRotator {
        TokenRotator::new(self.config(), self.slack(), store).with_clock(self.fake.clock())
    }

    /// Returns the store with a hook that decides the fate of each update by its number.
    pub(crate) fn hooked(
        &self,
        way: impl Fn(usize) -> Way + Send + Sync + 'static,
    ) -> HookedChains {
        HookedChains::new(self.store.clone(), way, |_| (Duration::ZERO, None))
    }

    /// Returns the rotator of a process with a hook that decides the fate of each update by its
    /// number.
    pub(crate) fn rotator_with_updates(
        &self,
        way: impl Fn(usize) -> Way + Send + Sync + 'static,
    ) -> TokenRotator {
        self.rotator_on(self.hooked(way))
    }

    /// Returns a rotator whose task dies after this many updates, at the next one.
    pub(crate) fn dying(&self, after: usize) -> TokenRotator {
        self.rotator_with_updates(move |number| {
            if number == after {
                Way::Dies
            } else {
                Way::Done
            }
        })
    }

    /// Injects a fault into the next refresh.
    pub(crate) fn inject(&self, fault: Fault) {
        self.fake.inject(REFRESH, fault);
    }

    /// Installs the app in a workspace as Ada, and stores the installation.
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

    /// Installs the app for this many tenants.
    pub(crate) async fn fleet(&self, size: usize) -> Vec<InstallationKey> {
        let mut tenants = Vec::new();
        for number in 0..size {
            let id = format!("T0FLEET{number:04}");
            self.fake.add_workspace(Workspace::new(&id, "Fleet"));
            self.fake.add_person(&id, Person::admin(ADMIN, "ada"));
            self.install(&id, "chat:write", "").await;
            tenants.push(InstallationKey::workspace(TeamId::new(id).expect("an id")));
        }
        tenants
    }

    /// Fetches Alpha's installation.
    pub(crate) async fn fetched(&self) -> StoredInstallation {
        let fetched = self.store.fetch(&alpha(), None).await;
        fetched.expect("available").expect("installed")
    }

    /// Changes the bot's chain as another process might have.
    pub(crate) async fn change(&self, change: impl Fn(&mut Chain) + Send + Sync) {
        let mut decide = |chain: Option<&Chain>| {
            let mut next = chain?.clone();
            change(&mut next);
            Some(next)
        };
        let updated = self.store.update(&bot(), None, &mut decide).await;
        updated.expect("available").expect("installed");
    }

    pub(crate) async fn chain(&self, credential: Credential) -> Option<StoredChain> {
        let key = ChainKey {
            credential,
            tenant: alpha(),
        };
        self.store.chain(&key).await.expect("the store is up")
    }

    pub(crate) async fn bot_chain(&self) -> StoredChain {
        self.chain(Credential::Bot)
            .await
            .expect("the bot is installed")
    }

    /// Moves the clock past the token's expiry.
    pub(crate) fn expire(&self) {
        self.fake.advance(13 * HOUR);
    }

    /// Moves the clock to a time at which the token is due for a refresh but still valid.
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

/// Runs until every task waits, without moving the clock.
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

/// Holds Slack's responses to refreshes until a test releases them: Slack has carried the refresh
/// out, and the caller does not know it yet.
pub(crate) type Held = HookedTransport<Hold>;

pub(crate) struct Hold {
    answered: Semaphore,
    released: Semaphore,
}

impl Hold {
    /// Waits until Slack has responded to a refresh.
    pub(crate) async fn answered(&self) {
        let answered = self.answered.acquire().await;
        answered.expect("never closed").forget();
    }

    /// Releases this response and all later ones.
    pub(crate) fn release(&self) {
        self.released.add_permits(Semaphore::MAX_PERMITS);
    }
}

#[async_trait]
impl CallHooks for Hold {
    async fn after(&self, path: &str) {
        if path.ends_with(REFRESH) {
            self.answered.add_permits(1);
            drop(self.released.acquire().await.expect("never closed"));
        }
    }
}

/// Requests the token of Alpha's bot.
pub(crate) trait BotToken {
    fn bot_token(&self) -> impl Future<Output = Result<Token, RotationError>> + Send;
}

impl BotToken for TokenRotator {
    async fn bot_token(&self) -> Result<Token, RotationError> {
        self.token_for(&alpha(), Credential::Bot).await
    }
}

/// Spawns a caller that requests the token of Alpha's bot.
pub(crate) fn spawn_caller(rotator: &TokenRotator) -> JoinHandle<Result<Token, RotationError>> {
    let rotator = rotator.clone();
    tokio::spawn(async move { rotator.bot_token().await })
}

pub(crate) fn spawn_worker(rotator: &TokenRotator) -> JoinHandle<()> {
    let rotator = rotator.clone();
    tokio::spawn(async move { rotator.work(WorkerConfig::default()).await })
}

/// Returns the key of Alpha's bot.
pub(crate) fn bot() -> ChainKey {
    ChainKey {
        credential: Credential::Bot,
        tenant: alpha(),
    }
}

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// The time at which each of these tests begins, on Slack's clock.
fn epoch() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000)
}

const REDIRECT: &str = "http://localhost:3000/slack/oauth_redirect";
