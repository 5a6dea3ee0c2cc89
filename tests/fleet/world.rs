//! A database, a Slack and the time, for the parent of the processes.

use std::sync::Arc;
use std::time::Duration;

use slack_installs::backend::Backend;
use slack_installs::secret::Code;
use slack_installs::slack::{ClientCredentials, SlackClient};
use slack_installs::store::{ChainKey, Credential, RotationStore as _, StoredChain};
use slack_installs::testing::{FakeSlack, Person, Rotation, Who, Workspace, World as SlackWorld};
use slack_installs::{
    Clock, Delete, EncryptedStore, Installation, InstallationKey, InstallationStore as _,
    LocalKeyProvider, MasterKey, TeamId,
};

use crate::child::Child;
use crate::orders::{Order, Orders, fingerprint, start};
use crate::process;
use crate::slack::Front;

pub(crate) struct World {
    pub(crate) fake: FakeSlack,
    pub(crate) front: Front,
    database: String,
    master_key: String,
    store: EncryptedStore<Arc<dyn Backend>>,
    passed: Duration,
    teams: usize,
}

impl World {
    pub(crate) async fn open(database: &str) -> Self {
        let fake = FakeSlack::in_process(SlackWorld::default().with_clock(Clock::from_fn(start)));
        let front = Front::start(fake.clone()).await;
        let master_key = MasterKey::generate().to_base64().to_string();
        let provider = LocalKeyProvider::new(MasterKey::parse(&master_key).expect("a key"));
        let backend = process::open(database).await;
        let store = EncryptedStore::open(backend, provider, fake.client_id()).await;
        Self {
            store: store.expect("the database is up").with_clock(fake.clock()),
            fake,
            front,
            database: database.to_owned(),
            master_key,
            passed: Duration::ZERO,
            teams: 0,
        }
    }

    /// Starts a process.
    pub(crate) async fn process(&self, is_held: bool) -> Child {
        let orders = Orders {
            database: self.database.clone(),
            slack: self.front.url.clone(),
            client_id: self.fake.client_id().to_string(),
            client_secret: self.fake.client_secret().expose().to_owned(),
            master_key: self.master_key.clone(),
            passed: self.passed,
            is_held,
        };
        Child::start(&orders).await
    }

    /// Lets time pass at Slack, for this process, and for all processes that start later.
    pub(crate) async fn jump(&mut self, by: Duration, process: &mut Child) {
        self.passed += by;
        self.fake.advance(by);
        process.tell(Order::Jump(by)).await;
    }

    /// Installs a workspace whose bot's token has expired. From then on Slack rotates by these
    /// rules.
    pub(crate) async fn expired(&mut self, rotation: Rotation, process: &mut Child) -> String {
        self.teams += 1;
        let team = format!("T0FLEET{:05}", self.teams);
        self.fake.add_workspace(Workspace::new(&team, "Fleet"));
        self.fake.add_person(&team, Person::admin(ADMIN, "ada"));
        self.fake.rotate_tokens(Rotation {
            token_life: Duration::from_secs(1),
            ..rotation.clone()
        });
        self.install(&team).await;
        self.jump(Duration::from_secs(2), process).await;
        self.fake.rotate_tokens(rotation);
        team
    }

    pub(crate) async fn install(&self, team: &str) {
        let fake = &self.fake;
        let mut url = fake.environment().authorize_url();
        url.query_pairs_mut()
            .append_pair("client_id", fake.client_id().as_str())
            .append_pair("scope", "chat:write")
            .append_pair("redirect_uri", REDIRECT)
            .append_pair("team", team);
        let callback = fake.allow(&url, Who::user(ADMIN).at(team));
        let callback = callback.expect("Ada may install");
        let code = callback.query_pairs().find(|(name, _)| name == "code");
        let code = Code::new(code.expect("a code").1).expect("plausible");
        let slack = SlackClient::with_transport(fake.environment(), fake.transport())
            .with_clock(fake.clock());
        let app = ClientCredentials {
            client_id: fake.client_id(),
            client_secret: fake.client_secret(),
        };
        let issued = slack.oauth_v2_access(&app, &code, REDIRECT).await;
        let issued = issued.expect("the fake exchanges");
        let mut installation = Installation::new(issued.app_id, issued.home, issued.at);
        installation.bot = issued.bot;
        self.store.store(&installation).await.expect("stored");
    }

    /// Removes the app at Slack, and handles the event.
    pub(crate) async fn uninstall(&self, team: &str) {
        assert!(self.fake.uninstall(team), "it was installed");
        self.forget(team).await;
    }

    pub(crate) async fn forget(&self, team: &str) {
        let deleted = self.store.delete(&key(team), &Delete::all()).await;
        deleted.expect("the database is up");
    }

    pub(crate) async fn chain(&self, team: &str) -> Option<StoredChain> {
        let key = ChainKey {
            credential: Credential::Bot,
            tenant: key(team),
        };
        self.store.chain(&key).await.expect("the row opens")
    }

    /// Reports whether Slack accepts the token of this hash now.
    pub(crate) fn is_live(&self, hash: &str) -> bool {
        let secrets = self.fake.secrets();
        let token = secrets.iter().find(|token| fingerprint(token) == hash);
        self.fake.is_live(token.expect("the fake issued the token"))
    }

    /// Counts the refresh tokens that no process knows, among the secrets after the first `since`.
    /// They were never used, Slack would accept them, and they are not in the row.
    pub(crate) fn forgotten(&self, since: usize, stored: Option<&StoredChain>) -> usize {
        let secrets = self.fake.secrets();
        let refresh_tokens = secrets[since..]
            .iter()
            .filter(|secret| secret.starts_with("xoxe-1-"));
        let is_stored = |token: &str| {
            let tokens = stored
                .into_iter()
                .flat_map(|it| it.grant.refresh_token.iter().chain(&it.alternates));
            tokens.into_iter().any(|it| it.expose() == token)
        };
        let forgotten = refresh_tokens.filter(|token| {
            self.fake.uses(token) == 0 && self.fake.is_refreshable(token) && !is_stored(token)
        });
        forgotten.count()
    }
}

fn key(team: &str) -> InstallationKey {
    InstallationKey::workspace(TeamId::new(team).expect("an id"))
}

const ADMIN: &str = "U0ADMIN0001";
const REDIRECT: &str = "http://localhost:3000/slack/oauth_redirect";
