//! The health check of a process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use serde_json::{Value, json};
use slack_installs::backend::{Error, MemoryBackend};
use slack_installs::slack::SlackClient;
use slack_installs::store::Credential;
use slack_installs::testing::{FakeSlack, Fault, Rotation};
use slack_installs::{
    EncryptedStore, HealthReason, InstallOptions, KeyProvider, LocalKeyProvider, SlackApp,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::support::app::{
    ADA, ALPHA, Browser, REDIRECT, credentials, installed, key, location, world,
};
use crate::support::hooked::{Call, Hooked, Hooks};
use crate::support::providers::{self, Remote, master_key};

/// What the database does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Works,
    Down,
    Hangs,
    /// It panics when the queue is read.
    Panics,
}

struct Database {
    way: watch::Receiver<Way>,
    reads: Arc<AtomicUsize>,
}

#[async_trait]
impl Hooks for Database {
    async fn before(&self, call: Call<'_>) -> Result<(), Error> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let way = *self.way.borrow();
        match (way, call) {
            (Way::Down, _) => Err(Error::Unavailable("a canary".into())),
            (Way::Hangs, _) => std::future::pending().await,
            // Panics on purpose, without a message.
            (Way::Panics, Call::Due(..)) => std::panic::resume_unwind(Box::new("it panics")),
            _ => Ok(()),
        }
    }
}

/// A process whose database the test switches.
struct Process {
    fake: FakeSlack,
    front: SlackApp,
    way: watch::Sender<Way>,
    reads: Arc<AtomicUsize>,
}

impl Process {
    async fn new() -> Self {
        Self::with(LocalKeyProvider::new(master_key())).await
    }

    async fn with(keys: impl KeyProvider) -> Self {
        let (way, receiver) = watch::channel(Way::Works);
        let reads = Arc::<AtomicUsize>::default();
        let database = Database {
            way: receiver,
            reads: Arc::clone(&reads),
        };
        let backend = Hooked::over(Arc::new(MemoryBackend::default()), database);
        let fake = FakeSlack::in_process(world());
        fake.rotate_tokens(Rotation::default());
        let slack = SlackClient::with_transport(fake.environment(), fake.transport());
        let store = EncryptedStore::open(backend, keys, fake.client_id()).await;
        let store = store.expect("the database is up").with_clock(fake.clock());
        let front = SlackApp::builder()
            .credentials(credentials(&fake))
            .signing_secret(fake.signing_secret())
            .redirect_uri(REDIRECT)
            .scopes("commands,chat:write,users:read")
            .slack(slack)
            .clock(fake.clock())
            .store(store);
        Self {
            front: front.build().await.expect("nothing is missing"),
            fake,
            way,
            reads,
        }
    }

    /// Returns the health as JSON, after the last result has become old.
    async fn health(&self) -> Value {
        tokio::time::sleep(Duration::from_secs(1)).await;
        serde_json::to_value(self.front.health().await).expect("it serialises")
    }
}

fn health(is_live: bool, is_ready: bool, reasons: &[&str]) -> Value {
    json!({"is_live": is_live, "is_ready": is_ready, "reasons": reasons})
}

#[tokio::test(start_paused = true)]
async fn a_process_that_works_is_live_and_ready() {
    let process = Process::new().await;
    assert_eq!(process.health().await, health(true, true, &[]));
}

#[tokio::test(start_paused = true)]
async fn a_process_without_its_database_is_not_ready_and_says_so_within_a_second() {
    let process = Process::new().await;
    for way in [Way::Down, Way::Hangs] {
        process.way.send_replace(way);
        tokio::time::advance(Duration::from_secs(1)).await;
        let begun = Instant::now();
        let found = process.front.health().await;
        assert!(begun.elapsed() <= Duration::from_secs(1), "{way:?}");
        assert_eq!(found.reasons, [HealthReason::Database], "{way:?}");
        assert!(found.is_live && !found.is_ready, "{way:?}");
        let text = format!("{found:?}");
        assert!(!text.contains("canary"), "{text}");
    }
    process.way.send_replace(Way::Works);
    assert_eq!(process.health().await, health(true, true, &[]));
}

#[tokio::test(start_paused = true)]
async fn a_process_is_not_ready_once_its_data_key_is_too_old_and_the_key_provider_is_down() {
    for fault in [
        providers::Fault::Down,
        providers::Fault::Hangs,
        providers::Fault::Refused,
    ] {
        let keys = Remote::new();
        let process = Process::with(keys.clone()).await;
        keys.set(fault);
        assert_eq!(process.health().await, health(true, true, &[]), "{fault:?}");
        tokio::time::advance(Duration::from_secs(16 * 60)).await;
        let gone = health(true, false, &["keys"]);
        assert_eq!(process.health().await, gone, "{fault:?}");
        keys.set(None);
        // A call that hangs ends, and then the memory of its failure.
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(process.health().await, health(true, true, &[]), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_whose_app_slack_rejects_stays_ready_and_says_so() {
    let process = Process::new().await;
    let (browser, provider) = (Browser::default(), process.front.provider());
    let started = provider.start_response(InstallOptions::default()).await;
    browser.keep_cookies(&started);
    let callback = process
        .fake
        .allow(&location(&started), ADA)
        .expect("allowed");
    assert!(installed(&browser.open(provider, &callback).await));
    process.fake.advance(Duration::from_secs(13 * 3600));
    let rejected = Fault::error("bad_client_secret");
    process.fake.inject("oauth.v2.access", rejected);
    let token = async || {
        process
            .front
            .rotator()
            .token_for(&key(ALPHA), Credential::Bot)
            .await
    };
    token().await.expect_err("Slack rejects the app");
    let rejected = health(true, true, &["app_rejected"]);
    assert_eq!(process.health().await, rejected);
    // Also while the next probe is due.
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(process.health().await, rejected);
    process.fake.advance(Duration::from_secs(3600));
    token().await.expect("Slack accepts the app");
    assert_eq!(process.health().await, health(true, true, &[]));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_shuts_down_is_live_and_not_ready_at_once() {
    let process = Process::new().await;
    assert!(process.front.health().await.is_ready);
    assert!(process.front.shutdown().await);
    // Without a wait: only what the store says is remembered.
    let found = process.front.health().await;
    assert_eq!(found.reasons, [HealthReason::ShuttingDown]);
    assert!(found.is_live && !found.is_ready);
}

#[tokio::test(start_paused = true)]
async fn a_process_whose_background_work_panicked_is_not_live() {
    let process = Process::new().await;
    process.way.send_replace(Way::Panics);
    let background = tokio::spawn(process.front.run());
    background.await.expect_err("it panicked");
    let gone = health(false, true, &["background_panicked"]);
    assert_eq!(process.health().await, gone);
}

#[tokio::test(start_paused = true)]
async fn background_work_that_your_app_ends_is_no_panic() {
    let process = Process::new().await;
    let background = tokio::spawn(process.front.run());
    tokio::time::advance(Duration::from_secs(60)).await;
    background.abort();
    background.await.expect_err("it was ended");
    assert_eq!(process.health().await, health(true, true, &[]));
}

#[tokio::test(start_paused = true)]
async fn many_checks_read_the_database_once_a_second() {
    let process = Process::new().await;
    let reads = || process.reads.load(Ordering::SeqCst);
    process.health().await;
    tokio::time::advance(Duration::from_secs(1)).await;
    let before = reads();
    let checks = (0..1000).map(|_| process.front.health());
    assert!(join_all(checks).await.iter().all(|it| it.is_ready));
    assert_eq!(reads() - before, 1);
}
