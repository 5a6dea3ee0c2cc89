//! The workspaces: installed before the storm, checked after it, and then deleted.

use std::sync::Arc;

use slack_installs::backend::{Backend, Change, Partition};
use slack_installs::secret::Code;
use slack_installs::slack::SlackClient;
use slack_installs::store::{ChainKey, Credential, RotationStore as _};
use slack_installs::testing::{FakeSlack, Person, Who, Workspace};
use slack_installs::{EncryptedStore, Installation, InstallationKey, InstallationStore as _};
use tokio::task::JoinSet;

use crate::Failure;
use crate::orders::Orders;

#[derive(Clone)]
pub(crate) struct Workspaces {
    fake: FakeSlack,
    store: EncryptedStore<Arc<dyn Backend>>,
    orders: Arc<Orders>,
}

impl Workspaces {
    pub(crate) async fn open(
        fake: &FakeSlack,
        backend: Arc<dyn Backend>,
        orders: &Orders,
    ) -> Result<Self, Failure> {
        let store = EncryptedStore::open(backend, orders.keys()?, orders.client_id()?).await?;
        Ok(Self {
            fake: fake.clone(),
            store: store.with_clock(fake.clock()),
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
    Remove,
}

const ADMIN: &str = "U0ADMIN0001";
const REDIRECT: &str = "http://localhost:3000/slack/oauth_redirect";

/// More than the connections of a pool, and few enough that a server does not refuse them.
const AT_ONCE: usize = 16;
