//! A storm for the example: workspaces that install the app, use it and leave it, and troubles that
//! `POST /trouble/…` begins:
//!
//! * `secret`: Slack refuses the client secret, also for new installations;
//! * `keys`: the key provider fails;
//! * `rows`: nobody installs the app, so that rows that the database evicts do not come back;
//! * `none`: all troubles end.
//!
//! During a trouble, nobody leaves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::post;
use bytes::Bytes;
use http::Request;
use slack_installs::audit::{Audit, AuditOptions};
use slack_installs::backend;
use slack_installs::prelude::*;
use slack_installs::slack::{ClientCredentials, SlackClient};
use slack_installs::testing::{FakeSlack, Fault, Person, Rotation, Who, Workspace, World};
use slack_installs::{
    CacheOptions, DataKey, EncryptedStore, KeyContext, KeyError, KeyProvider, LocalKeyProvider,
    MasterKey,
};
use url::Url;

use crate::Result;

/// A fake Slack, and people who use the app.
#[derive(Clone)]
pub(crate) struct Storm {
    fake: FakeSlack,
    keys: Keys,
    at: Url,
    /// The number of the last workspace.
    last: Arc<AtomicUsize>,
    is_troubled: Arc<AtomicBool>,
    has_no_installs: Arc<AtomicBool>,
}

impl Storm {
    pub(crate) async fn new(address: SocketAddr) -> Result<Self> {
        let at = Url::parse(&format!("http://localhost:{}/", address.port()))?;
        let world = World::empty().with_redirect_url(at.join("slack/oauth_redirect")?.as_str());
        let fake = FakeSlack::start_with(world).await?;
        // Seconds instead of 12 hours, so that tokens are refreshed all the time: each workspace
        // installs the app again after about 20 s.
        fake.rotate_tokens(Rotation {
            token_life: Duration::from_secs(15),
            ..Rotation::default()
        });
        Ok(Self {
            fake,
            keys: Keys::new(),
            at,
            last: Arc::default(),
            is_troubled: Arc::default(),
            has_no_installs: Arc::default(),
        })
    }

    /// Builds the app of the fake Slack. Its database is in memory, or at this URL.
    pub(crate) async fn app(&self, database: Option<String>) -> Result<SlackApp> {
        let backend = backend::connect(database.as_deref().unwrap_or("memory:")).await?;
        let store = EncryptedStore::open(backend, self.keys.clone(), self.fake.client_id()).await?;
        let audit = Audit::open(Arc::new(store.clone()), AuditOptions::default()).await?;
        let store = store.with_witness(audit);
        let app = SlackApp::builder()
            .credentials(ClientCredentials {
                client_id: self.fake.client_id(),
                client_secret: self.fake.client_secret(),
            })
            .signing_secret(self.fake.signing_secret())
            .redirect_uri(self.at.join("slack/oauth_redirect")?)
            .scopes("commands,chat:write")
            .user_scopes("search:read")
            .slack(SlackClient::new(self.fake.environment()))
            .store(store.with_cache(CacheOptions::default()));
        Ok(app.build().await?)
    }

    /// Returns the routes that begin and end troubles.
    pub(crate) fn routes(&self) -> Router<SlackApp> {
        let storm = self.clone();
        let begin = async move |Path(trouble): Path<String>| {
            if storm.begin(&trouble) {
                StatusCode::OK
            } else {
                StatusCode::NOT_FOUND
            }
        };
        Router::new().route("/trouble/{name}", post(begin))
    }

    fn begin(&self, trouble: &str) -> bool {
        let is_troubled = trouble != "none";
        self.is_troubled.store(is_troubled, Ordering::Relaxed);
        match trouble {
            "rows" => self.has_no_installs.store(true, Ordering::Relaxed),
            "keys" => self.keys.fails.store(true, Ordering::Relaxed),
            "secret" => {
                let revoked = Fault::error("bad_client_secret").always();
                self.fake.inject("oauth.v2.access", revoked);
            }
            "none" => {
                self.has_no_installs.store(false, Ordering::Relaxed);
                self.keys.fails.store(false, Ordering::Relaxed);
                self.fake.clear_faults();
            }
            _ => return false,
        }
        true
    }

    /// Runs the storm until the process ends.
    pub(crate) async fn rage(self) {
        for round in 0_usize.. {
            if let Err(error) = self.round(round).await {
                tracing::debug!(%error, "a part of the storm failed");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn round(&self, round: usize) -> Result<()> {
        let installed = self.last.load(Ordering::Relaxed).min(WORKSPACES);
        let is_due = installed < WORKSPACES || round.is_multiple_of(20);
        if is_due && !self.has_no_installs.load(Ordering::Relaxed) {
            self.install().await?;
        }
        let number = round % WORKSPACES;
        let who = Who::user(ADA).at(workspace(number));
        let command = self.fake.slash_command(who, "/hello", "");
        let (commands, events) = (
            self.at.join("slack/command")?,
            self.at.join("slack/events")?,
        );
        self.fake.deliver(&commands, &command).await?;
        match round % 50 {
            // A request that Slack did not sign.
            0 => {
                let unsigned = Request::post(commands.as_str()).body(Bytes::new())?;
                self.fake.send(unsigned).await?;
            }
            // A workspace that has not installed the app.
            10 => {
                self.fake
                    .add_workspace(Workspace::new(STRANGER, "Stranger"));
                self.fake.add_person(STRANGER, Person::admin(ADA, "ada"));
                let who = Who::user(ADA).at(STRANGER);
                let command = self.fake.slash_command(who, "/hello", "");
                self.fake.deliver(&commands, &command).await?;
            }
            _ => {}
        }
        // Few leave, as of a real app.
        let is_troubled = self.is_troubled.load(Ordering::Relaxed);
        match round % 500 {
            _ if is_troubled => {}
            20 => drop(self.fake.revoke_user(&workspace(number), ADA)),
            30 => drop(self.fake.uninstall(&workspace(number))),
            _ => {}
        }
        for event in self.fake.take_events() {
            self.fake.deliver(&events, &event).await?;
        }
        Ok(())
    }

    /// Installs the app in the next workspace.
    async fn install(&self) -> Result<()> {
        let number = self.last.fetch_add(1, Ordering::Relaxed) % WORKSPACES;
        let id = workspace(number);
        self.fake.add_workspace(Workspace::new(&id, "Storm"));
        self.fake.add_person(&id, Person::admin(ADA, "ada"));
        let page = self.at.join("slack/install")?;
        let who = Who::user(ADA).at(&id);
        self.fake.install(&page, who).await?;
        Ok(())
    }
}

fn workspace(number: usize) -> String {
    format!("T0STORM{number:04}")
}

/// A key provider that fails when the storm says so.
#[derive(Clone, Debug)]
struct Keys {
    inner: Arc<LocalKeyProvider>,
    fails: Arc<AtomicBool>,
}

impl Keys {
    fn new() -> Self {
        Self {
            inner: Arc::new(LocalKeyProvider::new(MasterKey::generate())),
            fails: Arc::default(),
        }
    }

    fn check(&self) -> std::result::Result<(), KeyError> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(KeyError::Unavailable("the storm".into()));
        }
        Ok(())
    }
}

#[async_trait]
impl KeyProvider for Keys {
    async fn wrap(
        &self,
        key: &DataKey,
        context: &KeyContext<'_>,
    ) -> std::result::Result<Vec<u8>, KeyError> {
        self.check()?;
        self.inner.wrap(key, context).await
    }

    async fn unwrap(
        &self,
        wrapped: &[u8],
        context: &KeyContext<'_>,
    ) -> std::result::Result<DataKey, KeyError> {
        self.check()?;
        self.inner.unwrap(wrapped, context).await
    }
}

const ADA: &str = "U0ADMIN0001";
const STRANGER: &str = "T0STRANGER1";
const WORKSPACES: usize = 20;
