//! An app whose tenants install and leave: its lifecycle, its authorizer, and the departures that
//! its hook received.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use serde_json::json;
use slack_installs::backend::{Backend, MemoryBackend};
use slack_installs::request::{VerifiedRequest, Verifier};
use slack_installs::slack::SlackClient;
use slack_installs::testing::{Delivery, Who, World};
use slack_installs::{
    AuthorizeError, AuthorizeResult, Authorizer, Clock, Departure, Handled, InstallOptions,
    Lifecycle, LifecycleError, LifecycleHooks, Scopes,
};
use url::Url;

use super::all_rows;
use super::app::{ADA, App, Store, world};
use super::checks::Database;
use super::installs::noon;

pub struct Life {
    pub app: App,
    pub backend: Arc<dyn Backend>,
    pub lifecycle: Lifecycle,
    pub authorizer: Authorizer,
    pub verifier: Verifier,
    pub host: Host,
}

impl Life {
    pub async fn new() -> Self {
        Self::with(world(), Arc::new(MemoryBackend::default())).await
    }

    /// Returns an app whose clock moves only when the test moves it, for tests that count seconds.
    pub async fn standing() -> Self {
        let world = world().with_clock(Clock::from_fn(noon));
        Self::with(world, Arc::new(MemoryBackend::default())).await
    }

    /// Returns an event of this tenant: a user mentions the app.
    pub fn mention(&self, team: &str) -> Delivery {
        let event = json!({"type": "app_mention", "user": ADA});
        self.app.fake.event(team, event)
    }

    pub async fn with(world: World, database: impl Into<Database>) -> Self {
        let database = database.into();
        let backend = Arc::clone(&database.backend);
        let app = App::with(world, database, |config| {
            config.user_scopes = "search:read".into();
        })
        .await;
        let host = Host::default();
        let lifecycle = lifecycle(&app, &app.store, &host);
        Self {
            authorizer: Authorizer::new(app.store.clone()).with_clock(app.fake.clock()),
            verifier: Verifier::new(&app.fake.signing_secret()).with_clock(app.fake.clock()),
            app,
            backend,
            lifecycle,
            host,
        }
    }

    /// Returns the lifecycle of a process that reaches Slack through this client.
    pub fn lifecycle_over(&self, slack: &SlackClient) -> Lifecycle {
        Lifecycle::new(self.app.store.clone(), slack.clone())
            .with_hooks(self.host.clone())
            .with_clock(self.app.fake.clock())
    }

    /// Delivers a request to a process that reaches Slack through this client.
    pub async fn deliver_over(
        &self,
        slack: &SlackClient,
        delivery: &Delivery,
    ) -> Result<Handled, LifecycleError> {
        let lifecycle = self.lifecycle_over(slack);
        lifecycle.handle(&self.request(delivery)).await
    }

    /// Installs the app with user scopes only.
    pub async fn install_without_bot(&self, who: impl Into<Who>) {
        let options = InstallOptions {
            scopes: Some(Scopes::default()),
            user_scopes: Some(Scopes::from("search:read")),
            ..InstallOptions::default()
        };
        let page = self.app.install_with(options, who).await;
        assert!(page.body().contains("is installed"), "{}", page.body());
    }

    /// Installs the app with bot scopes only.
    pub async fn install_without_user(&self, who: impl Into<Who>) {
        let options = InstallOptions {
            user_scopes: Some(Scopes::default()),
            ..InstallOptions::default()
        };
        let page = self.app.install_with(options, who).await;
        assert!(page.body().contains("is installed"), "{}", page.body());
    }

    /// Returns the delivery with the time of dispatch set to so many seconds after the tenant's
    /// latest installation.
    pub async fn dispatched(&self, delivery: Delivery, tenant: &str, seconds: i64) -> Delivery {
        let installation = self.app.stored(tenant, None).await;
        let installed_at = installation.installed_at.duration_since(UNIX_EPOCH);
        let installed_at = installed_at.expect("after 1970").as_secs();
        let at = installed_at.checked_add_signed(seconds).expect("a time");
        delivery.edit(|event| event["event_time"] = at.into())
    }

    pub async fn install(&self, who: impl Into<Who>) {
        let page = self.app.install(who).await;
        assert!(page.body().contains("is installed"), "{}", page.body());
    }

    /// Returns the request of this delivery, arriving now.
    pub fn request(&self, delivery: &Delivery) -> VerifiedRequest {
        let now = self.app.fake.clock().now();
        let url = Url::parse("https://bot.example.com/slack/events").expect("a URL");
        let (head, body) = delivery.clone().sent_at(now).request(&url).into_parts();
        let verified = self.verifier.verify(&head.headers, body);
        verified.expect("the fake signs its deliveries")
    }

    pub async fn deliver(&self, delivery: &Delivery) -> Result<Handled, LifecycleError> {
        self.lifecycle.handle(&self.request(delivery)).await
    }

    pub async fn handled(&self, delivery: &Delivery) -> Handled {
        self.deliver(delivery)
            .await
            .expect("the delivery is handled")
    }

    pub async fn authorize(&self, delivery: &Delivery) -> Result<AuthorizeResult, AuthorizeError> {
        self.authorizer.authorize(&self.request(delivery)).await
    }

    pub fn advance(&self, seconds: u64) {
        self.app.fake.advance(Duration::from_secs(seconds));
    }

    pub async fn bot_token(&self, tenant: &str) -> Option<String> {
        let bot = self.app.fetch(tenant, None).await?.installation.bot?;
        Some(bot.grant.access_token.expose().to_owned())
    }

    pub async fn user_token(&self, tenant: &str, user: &str) -> Option<String> {
        let user = self
            .app
            .fetch(tenant, Some(user))
            .await?
            .installation
            .user?;
        Some(user.grant.access_token.expose().to_owned())
    }

    /// Returns the slots that this tenant still has.
    pub async fn slots(&self, tenant: &str) -> Vec<String> {
        let partition = format!("{}/{tenant}", self.app.fake.client_id());
        let rows = all_rows(&*self.backend).await.into_iter();
        rows.filter(|(key, _)| key.partition.as_str() == partition)
            .map(|(key, _)| key.slot.to_string())
            .collect()
    }
}

/// Returns the lifecycle of a process that opened this store.
pub fn lifecycle(app: &App, store: &Store, host: &Host) -> Lifecycle {
    Lifecycle::new(store.clone(), app.slack.clone())
        .with_hooks(host.clone())
        .with_clock(app.fake.clock())
}

/// The application: it records the departures that it gets, and fails on demand.
#[derive(Clone, Debug, Default)]
pub struct Host(Arc<Told>);

#[derive(Debug, Default)]
struct Told {
    departures: Mutex<Vec<(String, String, bool)>>,
    fails: AtomicBool,
}

impl Host {
    pub fn set_failing(&self, fails: bool) {
        self.0.fails.store(fails, Ordering::SeqCst);
    }

    /// Returns `(tenant, reason, is_installed_again)` of each call that succeeded.
    pub fn departures(&self) -> Vec<(String, String, bool)> {
        self.0
            .departures
            .lock()
            .expect("the lock is not poisoned")
            .clone()
    }

    pub fn tenants(&self) -> Vec<String> {
        self.departures()
            .into_iter()
            .map(|(tenant, ..)| tenant)
            .collect()
    }
}

#[async_trait]
impl LifecycleHooks for Host {
    async fn uninstalled(
        &self,
        departure: &Departure,
        is_installed_again: bool,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        tokio::task::yield_now().await;
        if self.0.fails.load(Ordering::SeqCst) {
            return Err("the hook fails on purpose".into());
        }
        let told = (
            departure.key.id().to_owned(),
            departure.reason.clone(),
            is_installed_again,
        );
        self.0
            .departures
            .lock()
            .expect("the lock is not poisoned")
            .push(told);
        Ok(())
    }
}
