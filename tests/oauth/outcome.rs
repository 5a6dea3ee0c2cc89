//! What a flow stores, and what its hooks receive.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use slack_installs::backend::{Backend, MemoryBackend};
use slack_installs::oauth::{
    Candidate, Decision, FailedFlow, InstallHooks, InstallPolicy, Installed,
};
use slack_installs::store::{self, ListCursor, StateId, StateStore};
use slack_installs::testing::{Faults, Flaky};
use slack_installs::{
    Delete, InstallConfig, InstallProvider, Installation, InstallationKey, InstallationStore,
    RedirectUri, Revision, Scopes, StoredInstallation, UserId,
};

use super::support::app::{
    ADA, ALPHA, App, BEN, Browser, REDIRECT, Store, installed, key, user_only, user_scopes, world,
};
use super::support::hooked_transport::{CallHooks, HookedTransport, Rewritten};
use super::{Heard, options};
use crate::support::app::credentials;

/// Records what the `installed` hook receives.
#[derive(Clone, Debug, Default)]
struct Told(Arc<Mutex<Vec<Facts>>>);

/// The bot's id, the URL, and the missing scopes.
type Facts = (Option<String>, Option<String>, [String; 2]);

#[async_trait]
impl InstallHooks for Told {
    async fn installed(&self, installed: &Installed) {
        let bot = installed.installation.bot.as_ref();
        let bot = bot.and_then(|bot| bot.id.as_ref());
        let bot = bot.map(|id| id.as_str().to_owned());
        let missing = installed.missing_scopes();
        let missing = [missing.scopes.to_string(), missing.user_scopes.to_string()];
        let url = installed.installation.url.clone();
        self.0.lock().expect("no panic").push((bot, url, missing));
    }

    async fn failed(&self, failed: &FailedFlow) {
        panic!("{failed}");
    }
}

impl Told {
    fn once(&self) -> Facts {
        let told = self.0.lock().expect("no panic");
        assert_eq!(told.len(), 1, "the hook is called once");
        told[0].clone()
    }
}

async fn flow(app: &App, provider: &InstallProvider, scopes: &[&str], who: &str) -> String {
    let mut options = options();
    if let [bot, user] = scopes {
        options.scopes = Some(Scopes::from(*bot));
        options.user_scopes = Some(Scopes::from(*user));
    }
    let browser = Browser::default();
    let callback = app.allowed(&browser, options, who).await;
    let page = browser.open(provider, &callback).await;
    format!("{} {}", page.status().as_u16(), page.body())
}

#[tokio::test]
async fn the_host_is_told_what_is_stored() {
    let app = App::new().await;
    let told = Told::default();
    let provider = app.provider.clone().with_hooks(told.clone());
    flow(&app, &provider, &["commands", "search:read"], ADA).await;
    let stored = app.stored(ALPHA, Some(ADA)).await;
    let (bot, url, missing) = told.once();
    assert!(url.is_some() && url == stored.url);
    let stored = stored
        .installation
        .bot
        .expect("a bot")
        .id
        .expect("from auth.test");
    assert_eq!(bot.as_deref(), Some(stored.as_str()));
    assert_eq!(missing, ["", ""]);
}

#[tokio::test]
async fn the_host_is_told_what_was_asked_for_and_not_granted() {
    for (withheld, missing) in [
        ("chat:write", ["chat:write", ""]),
        ("search:read", ["", "search:read"]),
        ("chat:write,search:read", ["chat:write", "search:read"]),
    ] {
        let app = App::new().await;
        let told = Told::default();
        let provider = app.provider.clone().with_hooks(told.clone());
        app.fake.withhold(withheld);
        let scopes = ["chat:write,commands", "search:read,files:write"];
        flow(&app, &provider, &scopes, ADA).await;
        assert_eq!(told.once().2, missing, "{withheld}");
    }
}

#[tokio::test]
async fn somebody_without_a_bot_is_asked_about_by_their_own_token() {
    let app = App::new().await;
    assert!(installed(
        &app.install_with(user_only("search:read"), BEN).await
    ));
    let token = app.fake.user_token(ALPHA, BEN).expect("issued");
    assert_eq!(app.fake.calls_with("auth.test", token.expose()), 1);
    assert!(app.stored(ALPHA, Some(BEN)).await.url.is_some());
}

#[tokio::test]
async fn what_slack_tells_of_a_users_token_changes_nothing_of_the_bot() {
    let app = App::new().await;
    assert!(installed(&app.install(ADA).await));
    let before = app.stored(ALPHA, None).await.installation.bot;
    let odd = Rewritten::over(app.fake.transport(), |path: &str, body: Bytes| {
        let mut answer: Value = serde_json::from_slice(&body).expect("JSON");
        if path.ends_with("auth.test") {
            answer["bot_id"] = json!("B0OTHER0001");
        }
        answer.to_string().into()
    });
    let provider = app.provider_over(app.store.clone(), odd);
    flow(&app, &provider, &["", "search:read"], BEN).await;
    let after = app.stored(ALPHA, Some(BEN)).await;
    assert!(after.user.is_some());
    let id = |bot: Option<slack_installs::Bot>| bot.expect("a bot").id.expect("known");
    assert_eq!(id(after.installation.bot), id(before));
}

/// Deletes the installation during the call of `auth.test`.
struct Leaving(Store);

#[async_trait]
impl CallHooks for Leaving {
    async fn before(&self, path: &str) {
        if path.ends_with("auth.test") {
            let removed = self.0.delete(&key(ALPHA), &Delete::all()).await;
            assert!(removed.expect("the store responds"));
        }
    }
}

#[tokio::test]
async fn what_could_not_be_noted_is_not_told_as_stored() {
    let app = App::new().await;
    let told = Told::default();
    let leaving = HookedTransport::over(app.fake.transport(), Leaving(app.store.clone()));
    let provider = app.provider_over(app.store.clone(), leaving);
    flow(&app, &provider.with_hooks(told.clone()), &[], ADA).await;
    assert_eq!(told.once(), (None, None, [String::new(), String::new()]));
    assert!(app.fetch(ALPHA, None).await.is_none());
}

#[tokio::test]
async fn an_exchange_that_brings_no_token_is_no_installation() {
    let app = App::new().await;
    let empty = Rewritten::over(app.fake.transport(), |path: &str, body: Bytes| {
        let mut answer: Value = serde_json::from_slice(&body).expect("JSON");
        if path.ends_with("oauth.v2.access") {
            let members = answer.as_object_mut().expect("an object");
            members.remove("access_token");
        }
        answer.to_string().into()
    });
    let provider = app.provider_over(app.store.clone(), empty);
    let page = flow(&app, &provider, &[], ADA).await;
    assert!(page.starts_with("400 "), "{page}");
    assert!(page.contains("granted nothing"), "{page}");
    assert!(app.fetch(ALPHA, None).await.is_none());
}

#[tokio::test]
async fn an_identity_beside_something_else_is_an_installation() {
    let app = App::new().await;
    let mixed = app
        .install_with(user_only("identity.basic,search:read"), BEN)
        .await;
    assert!(installed(&mixed), "{}", mixed.body());
    let app = App::new().await;
    let beside_bot = app.install_with(user_scopes("identity.basic"), ADA).await;
    assert!(installed(&beside_bot), "{}", beside_bot.body());
    assert!(app.stored(ALPHA, Some(ADA)).await.user.is_some());
}

/// Takes the database down after the exchange and before the store, for this long.
#[derive(Debug)]
pub(super) struct Outage(pub(super) Arc<Flaky<MemoryBackend>>, pub(super) Duration);

#[async_trait]
impl InstallPolicy for Outage {
    async fn judge(&self, _: &Candidate<'_>) -> Decision {
        self.0.set_faults(Faults {
            lost_commits: 1,
            lost_reads: 1,
            ..Faults::none()
        });
        let (backend, away) = (Arc::clone(&self.0), self.1);
        tokio::spawn(async move {
            tokio::time::sleep(away).await;
            backend.set_faults(Faults::none());
        });
        Decision::Allow
    }
}

#[tokio::test(start_paused = true)]
async fn a_database_is_waited_for_as_long_as_a_person_waits() {
    for (away, ends) in [(3900, true), (30_000, false)] {
        let backend = Arc::new(Flaky::new(MemoryBackend::default(), Faults::none()));
        let app = App::with(world(), Arc::clone(&backend) as Arc<dyn Backend>, |_| {}).await;
        let heard = Heard::default();
        let outage = Outage(Arc::clone(&backend), Duration::from_millis(away));
        let provider = app.provider.clone().with_policy(outage);
        let page = flow(&app, &provider.with_hooks(heard.clone()), &[], ADA).await;
        assert_eq!(page.starts_with("200 "), ends, "{away} ms: {page}");
        assert_eq!(page.starts_with("503 "), !ends, "{away} ms: {page}");
        let told = if ends { "installed" } else { "store" };
        assert_eq!(*heard.0.lock().expect("no panic"), [told]);
        // The installation may be stored, so nothing is revoked.
        assert_eq!(app.fake.calls("auth.revoke"), 0);
        assert_eq!(app.exchanges(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_installation_outlives_an_outage_of_minutes() {
    for seconds in [30, 9 * 60] {
        let backend = Arc::new(Flaky::new(MemoryBackend::default(), Faults::none()));
        let app = App::with(world(), Arc::clone(&backend) as Arc<dyn Backend>, |_| {}).await;
        let heard = Heard::default();
        let away = Duration::from_secs(seconds);
        let provider = app.provider.clone().with_policy(Outage(backend, away));
        let page = flow(&app, &provider.with_hooks(heard.clone()), &[], ADA).await;
        assert!(page.starts_with("503 "), "{page}");
        tokio::time::sleep(away + Duration::from_secs(30)).await;
        let bot = app
            .stored(ALPHA, None)
            .await
            .installation
            .bot
            .expect("a bot");
        assert!(bot.id.is_some(), "`auth.test` was called");
        assert_eq!(*heard.0.lock().expect("no panic"), ["store", "installed"]);
        assert_eq!((app.exchanges(), app.fake.calls("auth.revoke")), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_stored_for_ten_minutes_is_revoked_where_that_harms_nobody() {
    // Another installation of the workspace uses the same token in the second case.
    for is_installed in [false, true] {
        let app = App::new().await;
        if is_installed {
            assert!(app.install(ADA).await.body().contains("is installed"));
        }
        let store = Refusing {
            inner: app.store.clone(),
            asked: Arc::default(),
            is_away: true,
        };
        let provider = app.provider_over(store, app.fake.transport());
        let page = flow(&app, &provider, &[], ADA).await;
        assert!(page.starts_with("503 "), "{page}");
        assert_eq!(app.fake.calls("auth.revoke"), 0);
        tokio::time::sleep(Duration::from_secs(11 * 60)).await;
        assert_eq!(app.fake.is_installed(ALPHA), is_installed);
        assert_eq!(app.fake.calls("auth.revoke"), usize::from(!is_installed));
    }
}

/// A store that fails to store an installation, permanently or because its database is unavailable.
/// Reads work.
#[derive(Debug)]
pub(super) struct Refusing {
    pub(super) inner: Store,
    pub(super) asked: Arc<AtomicUsize>,
    pub(super) is_away: bool,
}

#[async_trait]
impl InstallationStore for Refusing {
    async fn store(&self, _: &Installation) -> Result<Revision, store::Error> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Err(if self.is_away {
            store::Error::Unavailable("away".into())
        } else {
            store::Error::Unreadable("changed".into())
        })
    }

    async fn fetch(
        &self,
        key: &InstallationKey,
        user: Option<&UserId>,
    ) -> Result<Option<StoredInstallation>, store::Error> {
        self.inner.fetch(key, user).await
    }

    async fn note(
        &self,
        key: &InstallationKey,
        revision: Revision,
        facts: &store::Facts,
    ) -> Result<bool, store::Error> {
        self.inner.note(key, revision, facts).await
    }

    async fn delete(&self, key: &InstallationKey, delete: &Delete) -> Result<bool, store::Error> {
        self.inner.delete(key, delete).await
    }

    async fn list(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<store::Listing, store::Error> {
        self.inner.list(from, limit).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_is_asked_again_only_if_it_may_do_it_and_nothing_is_revoked() {
    for (is_away, times) in [(false, 1), (true, 5)] {
        let app = App::new().await;
        let asked = Arc::default();
        let store = Refusing {
            inner: app.store.clone(),
            asked: Arc::clone(&asked),
            is_away,
        };
        let provider = app.provider_over(store, app.fake.transport());
        let page = flow(&app, &provider, &[], ADA).await;
        assert!(page.starts_with("503 "), "{page}");
        assert_eq!(asked.load(Ordering::SeqCst), times);
        // The installation may be stored, so its tokens may be in use.
        assert_eq!(app.fake.calls("auth.revoke"), 0);
        assert!(app.fake.is_installed(ALPHA));
    }
}

/// A hook that panics.
#[derive(Debug)]
struct Broken;

#[async_trait]
impl InstallHooks for Broken {
    async fn installed(&self, _: &Installed) {
        panic!("a bug of the app");
    }

    async fn failed(&self, _: &FailedFlow) {
        panic!("a bug of the app");
    }
}

#[tokio::test]
async fn a_hook_that_panics_takes_nothing_back() {
    let app = App::new().await;
    let provider = app.provider.clone().with_hooks(Broken);
    let page = flow(&app, &provider, &[], ADA).await;
    assert!(page.starts_with("500 "), "{page}");
    assert!(app.fetch(ALPHA, None).await.is_some());
    assert_eq!(app.fake.calls("auth.revoke"), 0);
}

/// A store that panics.
#[derive(Debug)]
struct Panicking;

#[async_trait]
impl StateStore for Panicking {
    async fn consume(&self, _: &StateId, _: SystemTime) -> Result<bool, store::Error> {
        panic!("a bug of the app")
    }

    async fn release(&self, _: &StateId) -> Result<(), store::Error> {
        panic!("a bug of the app")
    }
}

#[tokio::test]
async fn a_store_that_panics_ends_the_flow_and_the_host_is_told() {
    let app = App::new().await;
    let heard = Heard::default();
    let credentials = credentials(&app.fake);
    let redirect = RedirectUri::new(REDIRECT).expect("a redirect URL");
    let config = InstallConfig::new(credentials, redirect, Scopes::from("commands"));
    let store = app.store.clone();
    let provider = InstallProvider::new(config, app.slack.clone(), store, Panicking);
    let provider = provider.expect("it works").with_clock(app.fake.clock());
    let page = flow(&app, &provider.with_hooks(heard.clone()), &[], ADA).await;
    assert!(page.starts_with("503 "), "{page}");
    assert_eq!(*heard.0.lock().expect("no panic"), ["interrupted"]);
    assert_eq!(app.exchanges(), 0);
}

#[tokio::test]
async fn the_host_is_told_once_of_each_flow_that_fails() {
    let app = App::new().await;
    let heard = Heard::default();
    let provider = app.provider.clone().with_hooks(heard.clone());
    let browser = Browser::default();
    let callback = app.allowed(&browser, options(), ADA).await;
    let other = Browser::default().open(&provider, &callback).await;
    assert_eq!(other.status(), StatusCode::BAD_REQUEST);
    app.fake.advance(Duration::from_secs(600));
    browser.open(&provider, &callback).await;
    let told = ["other_browser", "state_expired"];
    assert_eq!(*heard.0.lock().expect("no panic"), told);
}
