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
    Clock, EncryptedStore, Installation, InstallationKey, InstallationStore as _, LocalKeyProvider,
    RotationConfig, StoredInstallation, TeamId, TokenRotator, UserId,
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

    /// Where Alpha has installed the app.
    pub(crate) async fn installed() -> Self {
        Self::installed_with(Rotation::default()).await
    }

    /// The same, where Slack deals so with the pairs that an answer replaces.
    pub(crate) async fn installed_under(policy: GracePolicy) -> Self {
        let rotation = Rotation::default();
        Self::installed_with(Rotation { policy, ..rotation }).await
    }

    pub(crate) async fn installed_with(rotation: Rotation) -> Self {
        let stage = Self::new(rotation).await;
        stage.install(ALPHA, "chat:write", "").await;
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
        RotationConfig::new(credentials(&self.fake))
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
        let hold = Hold {
            answered: Semaphore::new(0),
            released: Semaphore::new(0),
        };
        let held = HookedTransport::over(self.fake.transport(), hold);
        (self.rotator_over(self.config(), held.clone()), held)
    }

    /// The clock of a node that is this much ahead.
    pub(crate) fn ahead(&self, by: Duration) -> Clock {
        let clock = self.fake.clock();
        Clock::from_fn(move || clock.now() + by)
    }

    /// How often this process has asked the database.
    pub(crate) fn reads(&self) -> u64 {
        self.store.backend().counts().reads
    }

    /// One process's rotator over another store.
    pub(crate) fn rotator_on(&self, store: impl RotationStore) -> TokenRotator {
        TokenRotator::new(self.config(), self.slack(), store).with_clock(self.fake.clock())
    }

    /// The store, where updates go so, by their number.
    pub(crate) fn hooked(
        &self,
        way: impl Fn(usize) -> Way + Send + Sync + 'static,
    ) -> HookedChains {
        HookedChains::new(self.store.clone(), way, |_| (Duration::ZERO, None))
    }

    /// A process whose updates go so, by their number.
    pub(crate) fn rotator_with_updates(
        &self,
        way: impl Fn(usize) -> Way + Send + Sync + 'static,
    ) -> TokenRotator {
        self.rotator_on(self.hooked(way))
    }

    /// A process whose task dies at the update after this many.
    pub(crate) fn dying(&self, after: usize) -> TokenRotator {
        self.rotator_with_updates(move |number| {
            if number == after {
                Way::Dies
            } else {
                Way::Done
            }
        })
    }

    /// What the next refresh meets.
    pub(crate) fn inject(&self, fault: Fault) {
        self.fake.inject(REFRESH, fault);
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

    /// Many tenants that have installed the app.
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

    /// Alpha's installation, as it is stored.
    pub(crate) async fn fetched(&self) -> StoredInstallation {
        let fetched = self.store.fetch(&alpha(), None).await;
        fetched.expect("answers").expect("installed")
    }

    /// Changes the bot's chain as another process might have.
    pub(crate) async fn change(&self, change: impl Fn(&mut Chain) + Send + Sync) {
        let mut decide = |chain: Option<&Chain>| {
            let mut next = chain?.clone();
            change(&mut next);
            Some(next)
        };
        let updated = self.store.update(&bot(), None, &mut decide).await;
        updated.expect("answers").expect("installed");
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
pub(crate) type Held = HookedTransport<Hold>;

pub(crate) struct Hold {
    answered: Semaphore,
    released: Semaphore,
}

impl Hold {
    /// Waits until Slack has answered a refresh.
    pub(crate) async fn answered(&self) {
        let answered = self.answered.acquire().await;
        answered.expect("never closed").forget();
    }

    /// Lets this answer go, and all that follow.
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

/// Asks for the bot's token of Alpha.
pub(crate) trait BotToken {
    fn bot_token(&self) -> impl Future<Output = Result<Token, RotationError>> + Send;
}

impl BotToken for TokenRotator {
    async fn bot_token(&self) -> Result<Token, RotationError> {
        self.token_for(&alpha(), Credential::Bot).await
    }
}

/// A caller in a task of its own, who asks for the bot's token of Alpha.
pub(crate) fn spawn_caller(rotator: &TokenRotator) -> JoinHandle<Result<Token, RotationError>> {
    let rotator = rotator.clone();
    tokio::spawn(async move { rotator.bot_token().await })
}

pub(crate) fn spawn_worker(rotator: &TokenRotator) -> JoinHandle<()> {
    let rotator = rotator.clone();
    tokio::spawn(async move { rotator.work(WorkerConfig::default()).await })
}

/// The key of Alpha's bot.
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

/// When each of these tests begins, on Slack's clock.
fn epoch() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000)
}

const REDIRECT: &str = "http://localhost:3000/slack/oauth_redirect";
