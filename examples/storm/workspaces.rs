//! The workspaces: installed before the storm, checked after it, and then deleted.

use std::sync::Arc;
use std::time::Duration;

use slack_installs::backend::{Backend, Change, Partition};
use slack_installs::secret::Code;
use slack_installs::slack::SlackClient;
use slack_installs::store::{ChainKey, Credential, RotationStore as _};
use slack_installs::testing::{FakeSlack, Person, Who, Workspace};
use slack_installs::{
    EncryptedStore, Installation, InstallationKey, InstallationStore as _, RotationConfig,
    TokenRotator,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Failure;
use crate::orders::Orders;

#[derive(Clone)]
pub(crate) struct Workspaces {
    fake: FakeSlack,
    store: EncryptedStore<Arc<dyn Backend>>,
    orders: Arc<Orders>,
    /// For the end of the run.
    rotator: TokenRotator,
}

impl Workspaces {
    pub(crate) async fn open(
        fake: &FakeSlack,
        backend: Arc<dyn Backend>,
        orders: &Orders,
    ) -> Result<Self, Failure> {
        let store = EncryptedStore::open(backend, orders.keys()?, orders.client_id()?).await?;
        let store = store.with_clock(fake.clock());
        let slack = SlackClient::with_transport(fake.environment(), fake.transport())
            .with_clock(fake.clock());
        let config = RotationConfig::new(orders.credentials()?);
        let rotator = TokenRotator::new(config, slack, store.clone());
        Ok(Self {
            rotator: rotator.with_clock(fake.clock()),
            fake: fake.clone(),
            store,
            orders: Arc::new(orders.clone()),
        })
    }

    /// Installs the app in each workspace, with the two calls of the real flow.
    pub(crate) async fn install(&self) -> Result<(), Failure> {
        self.each(Task::Install).await.map(drop)
    }

    /// Returns the number of workspaces whose stored token Slack accepts now.
    pub(crate) async fn current(&self) -> Result<usize, Failure> {
        self.each(Task::IsCurrent).await
    }

    /// Returns the number of workspaces that get a token which Slack accepts, from a new process.
    pub(crate) async fn alive(&self) -> Result<usize, Failure> {
        self.each(Task::IsAlive).await
    }

    /// Deletes every row of the storm.
    pub(crate) async fn remove(&self) -> Result<(), Failure> {
        self.each(Task::Remove).await?;
        self.clear("keyring").await
    }

    /// Runs a task for each workspace. Returns for how many it returned `true`.
    async fn each(&self, task: Task) -> Result<usize, Failure> {
        let mut left = self.orders.tenants()?.into_iter();
        let mut working = JoinSet::new();
        let mut count = 0;
        loop {
            while working.len() < AT_ONCE
                && let Some(tenant) = left.next()
            {
                let this = self.clone();
                working.spawn(async move { this.carry_out(task, &tenant).await });
            }
            match working.join_next().await {
                Some(done) => count += usize::from(done??),
                None => return Ok(count),
            }
        }
    }

    async fn carry_out(&self, task: Task, tenant: &InstallationKey) -> Result<bool, Failure> {
        match task {
            Task::Install => self.install_in(tenant).await?,
            Task::IsCurrent => return self.is_current(tenant).await,
            Task::IsAlive => return Ok(self.is_alive(tenant).await),
            Task::Remove => self.clear(tenant.id()).await?,
        }
        Ok(true)
    }

    async fn install_in(&self, tenant: &InstallationKey) -> Result<(), Failure> {
        let (fake, id) = (&self.fake, tenant.id());
        fake.add_workspace(Workspace::new(id, "Storm"));
        fake.add_person(id, Person::admin(ADMIN, "ada"));
        let mut url = fake.environment().authorize_url();
        url.query_pairs_mut()
            .append_pair("client_id", fake.client_id().as_str())
            .append_pair("scope", "chat:write")
            .append_pair("redirect_uri", REDIRECT)
            .append_pair("team", id);
        let callback = fake.allow(&url, Who::user(ADMIN).at(id))?;
        let code = callback.query_pairs().find(|(name, _)| name == "code");
        let code = Code::new(code.ok_or("the callback has no code")?.1)?;
        let slack = SlackClient::with_transport(fake.environment(), fake.transport())
            .with_clock(fake.clock());
        let issued = slack
            .oauth_v2_access(&self.orders.credentials()?, &code, REDIRECT)
            .await?;
        let mut installation = Installation::new(issued.app_id, issued.home, issued.at);
        installation.bot = issued.bot;
        self.store.store(&installation).await?;
        Ok(())
    }

    async fn is_current(&self, tenant: &InstallationKey) -> Result<bool, Failure> {
        let key = ChainKey {
            credential: Credential::Bot,
            tenant: tenant.clone(),
        };
        let stored = self.store.chain(&key).await?;
        let is_live = |token: &str| self.fake.is_live(token);
        Ok(stored.is_some_and(|it| is_live(it.grant.access_token.expose())))
    }

    /// Requests a token, and again after each error that says so.
    async fn is_alive(&self, tenant: &InstallationKey) -> bool {
        let give_up = Instant::now() + LAST_CHANCE;
        loop {
            match self.rotator.token_for(tenant, Credential::Bot).await {
                Ok(token) => return self.fake.is_live(token.access_token.expose()),
                Err(error) if error.is_transient() && Instant::now() < give_up => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(error) => {
                    eprintln!("{tenant} is lost: {error}");
                    return false;
                }
            }
        }
    }

    async fn clear(&self, name: &str) -> Result<(), Failure> {
        let partition = Partition::new(format!("{}/{name}", self.orders.client_id))?;
        let backend = self.store.backend();
        Ok(backend.commit(&partition, &[Change::Clear]).await?)
    }
}

/// A task for one workspace.
#[derive(Clone, Copy)]
enum Task {
    Install,
    IsCurrent,
    IsAlive,
    Remove,
}

const ADMIN: &str = "U0ADMIN0001";
const REDIRECT: &str = "http://localhost:3000/slack/oauth_redirect";

/// Longer than the longest pause between two refreshes of a chain.
const LAST_CHANCE: Duration = Duration::from_secs(90);

/// More than the connections of a pool, and few enough that a server does not refuse them.
const AT_ONCE: usize = 16;
