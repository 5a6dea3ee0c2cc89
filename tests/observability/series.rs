//! The exact series and labels of metrics.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use slack_installs::backend::{self, Backend, MemoryBackend};
use slack_installs::oauth::{Candidate, Decision, InstallPolicy};
use slack_installs::store::{Chain, ChainKey, Credential, RotationStore as _};
use slack_installs::testing::{Delivery, Fault, Rotation, Workspace};
use slack_installs::{
    CacheOptions, ClientId, Clock, EncryptedStore, Hold, Home, Installation,
    InstallationStore as _, LifecycleStore as _, LocalKeyProvider, Scopes, SlackApp, Team, TeamId,
};
use tokio::sync::Barrier;
use tower_layer::Layer as _;
use tower_service::Service;
use url::Url;

use crate::support::app::{
    ADA, ALPHA, App, BRAVO, Browser, REDIRECT, credentials, installed, key, world,
};
use crate::support::hooked::{Call, Hooked, Hooks};
use crate::support::installs::noon;
use crate::support::life::Life;
use crate::support::providers::{self, Remote, master_key};
use crate::support::rotation::{Stage, spawn_caller};

/// A handler that accepts everything.
#[derive(Clone)]
struct Handler;

impl Service<Request<Full<Bytes>>> for Handler {
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;
    type Response = Response<Full<Bytes>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        ready(Ok(Response::default()))
    }
}

/// Refuses Bravo.
#[derive(Debug)]
struct NotBravo;

#[async_trait::async_trait]
impl InstallPolicy for NotBravo {
    async fn judge(&self, candidate: &Candidate<'_>) -> Decision {
        if candidate.installation.key() == key(BRAVO) {
            let reason = "not you".to_owned();
            return Decision::Refuse { reason };
        }
        Decision::Allow
    }
}

/// An app with a cache whose clock moves only when the test moves it.
struct Day {
    app: App,
    front: SlackApp,
}

impl Day {
    async fn new() -> Self {
        let world = world().with_clock(Clock::from_fn(noon));
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::default());
        let app = App::with(world, backend, |_| {}).await;
        app.fake.rotate_tokens(Rotation::default());
        let store = app.store.clone().with_cache(CacheOptions::default());
        let front = SlackApp::builder()
            .credentials(credentials(&app.fake))
            .signing_secret(app.fake.signing_secret())
            .redirect_uri(REDIRECT)
            .scopes("commands,chat:write,users:read")
            .slack(app.slack.clone())
            .clock(app.fake.clock())
            .store(store)
            .install_policy(NotBravo)
            .handle_once();
        let front = front.build().await.expect("nothing is missing");
        Self { app, front }
    }

    /// Runs the front's install flow as this person.
    async fn install(&self, who: &str) -> bool {
        let browser = Browser::default();
        let provider = self.front.provider();
        let started = provider.start_response(Default::default()).await;
        browser.keep_cookies(&started);
        let authorize = crate::support::app::location(&started);
        let callback = self.app.fake.allow(&authorize, who).expect("allowed");
        installed(&browser.open(provider, &callback).await)
    }

    async fn deliver(&self, delivery: &Delivery) -> StatusCode {
        let now = self.app.fake.clock().now();
        let url = Url::parse("https://bot.example.com/slack/events").expect("a URL");
        let request = delivery.clone().sent_at(now).request(&url).map(Full::new);
        self.send(request).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> StatusCode {
        let mut service = self.front.layer().layer(Handler);
        let response = service.call(request).await;
        response.expect("it never fails").status()
    }
}

/// Values by series: the name without the crate's prefix, and the labels.
pub(super) type Series = BTreeMap<String, f64>;

/// Returns the counters that have grown since the last call, and all gauges.
pub(super) fn changes(seen: &Snapshotter) -> (Series, Series) {
    let (mut counters, mut gauges) = (Series::new(), Series::new());
    for (key, _, help, value) in seen.snapshot().into_vec() {
        let _ = help;
        let labels = key.key().labels();
        let labels: Vec<_> = labels
            .map(|it| format!("{}={}", it.key(), it.value()))
            .collect();
        let name = key.key().name().strip_prefix("slack_installs_");
        let name = name.expect("each name has the crate's prefix");
        let series = format!("{name} {}", labels.join(",")).trim().to_owned();
        match value {
            DebugValue::Counter(0) => {}
            DebugValue::Counter(count) => drop(counters.insert(series, count as f64)),
            DebugValue::Gauge(value) => drop(gauges.insert(series, *value)),
            DebugValue::Histogram(_) => panic!("there is no histogram"),
        }
    }
    (counters, gauges)
}

/// Asserts exactly these changes of counters.
#[track_caller]
pub(super) fn assert_counted(seen: &Snapshotter, step: &str, expected: &[(&str, f64)]) {
    assert_eq!(counted(changes(seen).0), series(expected), "{step}");
}

/// Leaves out the reads of a cache, because their number says nothing.
fn counted(mut counters: Series) -> Series {
    counters.retain(|name, _| !name.starts_with("cache_reads_total"));
    counters
}

pub(super) fn series(expected: &[(&str, f64)]) -> Series {
    let expected = expected.iter();
    expected
        .map(|(name, value)| ((*name).to_owned(), *value))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_day_of_an_app_has_exactly_these_series_and_labels() {
    let recorder = DebuggingRecorder::new();
    let seen = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let day = Day::new().await;
    // The new key is unwrapped once before it is stored.
    let (counters, gauges) = changes(&seen);
    assert_eq!(
        counters,
        series(&[("key_provider_calls_total result=ok", 2.0)])
    );
    assert_eq!(gauges, series(&[("app_rejected", 0.0)]));

    assert!(day.install(ADA).await);
    assert!(!day.install("U0BRAVO0001").await);
    let forged = format!("{REDIRECT}?state=made-up&code=made-up");
    let provider = day.front.provider();
    Browser::default()
        .open(provider, &Url::parse(&forged).expect("a URL"))
        .await;
    let unasked = Url::parse(&format!("{REDIRECT}?code=made-up")).expect("a URL");
    Browser::default().open(provider, &unasked).await;
    let browser = Browser::default();
    browser.request(provider, &Method::HEAD, &unasked).await;
    assert_counted(
        &seen,
        "the install flow",
        &[
            (
                "install_flows_total outcome=failed,reason=invalid_state",
                1.0,
            ),
            ("install_flows_total outcome=failed,reason=refused", 1.0),
            ("install_flows_total outcome=installed,reason=none", 1.0),
            (
                "install_flows_total outcome=redirected,reason=no_state",
                1.0,
            ),
            ("install_flows_total outcome=started,reason=none", 3.0),
        ],
    );
    requests(&day, &seen).await;
    refreshes(&day, &seen).await;
    figures(&day, &seen).await;
    endings(&day, &seen).await;
}

async fn requests(day: &Day, seen: &Snapshotter) {
    let command = day.app.fake.slash_command(ADA, "/x", "");
    assert_eq!(day.deliver(&command).await, StatusCode::OK);
    // The same request once more.
    assert_eq!(day.deliver(&command).await, StatusCode::OK);
    let bravo = day.app.fake.slash_command("U0BRAVO0001", "/x", "");
    assert_eq!(day.deliver(&bravo).await, StatusCode::OK);
    let unsigned = Request::post("https://bot.example.com/slack/events");
    let unsigned = unsigned.body(Full::default()).expect("a request");
    let status = day.send(unsigned).await;
    assert!(status.is_client_error(), "{status}");
    let (counters, _) = changes(seen);
    for result in ["hit", "miss"] {
        let series = format!("cache_reads_total result={result}");
        assert!(counters.contains_key(&series), "{counters:?}");
    }
    assert_eq!(
        counted(counters),
        series(&[
            ("requests_total outcome=admitted,reason=none", 1.0),
            ("requests_total outcome=refused,reason=not_installed", 1.0),
            ("requests_total outcome=refused,reason=repeated", 1.0),
            ("requests_total outcome=unverified,reason=not_signed", 1.0),
        ])
    );
}

async fn refreshes(day: &Day, seen: &Snapshotter) {
    let rotator = day.front.rotator();
    let alpha = key(ALPHA);
    let refused = |code: &str| day.app.fake.inject("oauth.v2.access", Fault::error(code));
    day.app.fake.advance(Duration::from_secs(13 * 3600));
    refused("bad_client_secret");
    let failed = rotator.token_for(&alpha, Credential::Bot).await;
    failed.expect_err("Slack rejects the app");
    let (counters, gauges) = changes(seen);
    assert_eq!(gauges["app_rejected"], 1.0);
    let rejected = "refresh_attempts_total kind=bot,result=failed,cause=bad_client_secret";
    assert_eq!(counted(counters), series(&[(rejected, 1.0)]));
    tokio::time::advance(Duration::from_secs(11)).await;
    day.app.fake.advance(Duration::from_secs(60));
    refused("a_code_of_the_future");
    refused("a_code_of_the_future");
    let failed = rotator.token_for(&alpha, Credential::Bot).await;
    failed.expect_err("nobody knows the code");
    tokio::time::advance(Duration::from_secs(60)).await;
    day.app.fake.advance(Duration::from_secs(120));
    let refreshed = rotator.token_for(&alpha, Credential::Bot).await;
    refreshed.expect("Slack accepts the app");
    let (counters, gauges) = changes(seen);
    assert_eq!(gauges["app_rejected"], 0.0);
    let refreshed = [
        (
            "refresh_attempts_total kind=bot,result=failed,cause=other",
            1.0,
        ),
        (
            "refresh_attempts_total kind=bot,result=refreshed,cause=none",
            1.0,
        ),
    ];
    assert_eq!(counted(counters), series(&refreshed));
}

async fn figures(day: &Day, seen: &Snapshotter) {
    day.app.fake.advance(Duration::from_secs(3600));
    let figures = day.front.observe().await.expect("the store is up");
    assert_eq!((figures.tenants, figures.chains.fresh), (1, 1));
    let (_, mut gauges) = changes(seen);
    // The first key was made before the store got this clock.
    gauges
        .remove("key_age_seconds")
        .expect("the time of the first key is stored");
    // The token was issued for 12 hours, one hour ago.
    assert_eq!(
        gauges,
        series(&[
            ("app_rejected", 0.0),
            ("chains state=dead", 0.0),
            ("chains state=due", 0.0),
            ("chains state=expired", 0.0),
            ("chains state=fresh", 1.0),
            ("chains state=idle", 0.0),
            ("chains state=long_lived", 0.0),
            ("departures_waiting", 0.0),
            ("nearest_expiry_seconds", 11.0 * 3600.0),
            ("oldest_overdue_seconds", 0.0),
            ("queue_length lane=audit", 0.0),
            ("queue_length lane=departure", 0.0),
            ("queue_length lane=handled", 0.0),
            ("queue_length lane=notice", 0.0),
            ("queue_length lane=refresh", 0.0),
            // The states of the two flows that ended have expired.
            ("queue_length lane=state", 2.0),
            ("scope_drift_tenants", 0.0),
            ("tenants", 1.0),
        ])
    );
    // Without a worker, the token becomes due and expires.
    for (hours, state, overdue) in [(10, "due", true), (2, "expired", true)] {
        day.app.fake.advance(Duration::from_secs(hours * 3600));
        day.front.observe().await.expect("the store is up");
        let (_, changes) = changes(seen);
        for other in ["fresh", "due", "expired", "idle", "dead", "long_lived"] {
            let count = changes[&format!("chains state={other}")];
            assert_eq!(
                count,
                f64::from(u8::from(other == state)),
                "{state}: {other}"
            );
        }
        assert_eq!(changes["oldest_overdue_seconds"] > 0.0, overdue, "{state}");
        assert_eq!(changes["queue_length lane=refresh"], 1.0, "{state}");
    }
    // The age is that of the primary key.
    day.app
        .store
        .rotate_data_key()
        .await
        .expect("the provider is up");
    day.app.fake.advance(Duration::from_secs(77));
    day.front.observe().await.expect("the store is up");
    assert_eq!(changes(seen).1["key_age_seconds"], 77.0);
}

async fn endings(day: &Day, seen: &Snapshotter) {
    day.app.fake.uninstall(ALPHA);
    for event in day.app.fake.take_events() {
        day.deliver(&event).await;
    }
    day.front
        .operator()
        .purge(&key(ALPHA), "ticket 4711")
        .await
        .expect("up");
    let (mut counters, _) = changes(seen);
    counters.retain(|name, _| !name.starts_with("requests"));
    let ended = [
        (
            "lifecycle_events_total event=app_uninstalled,outcome=purged",
            1.0,
        ),
        (
            "lifecycle_events_total event=tokens_revoked,outcome=revoked",
            1.0,
        ),
        ("revocations_total kind=bot", 1.0),
        ("uninstalls_total reason=app_uninstalled", 1.0),
    ];
    assert_eq!(counted(counters), series(&ended));
}

#[tokio::test(start_paused = true)]
async fn figures_have_the_first_expiry_the_longest_delay_dead_chains_and_put_off_departures() {
    let life = Life::new().await;
    life.app.fake.rotate_tokens(Rotation::default());
    life.install_without_user(ADA).await;
    life.advance(3600);
    life.install_without_user("U0BRAVO0001").await;
    let store = &life.app.store;
    let figures = async |now| {
        let figures = store.figures(now, &Scopes::default()).await;
        figures.expect("the store is up")
    };
    let alpha = ChainKey {
        credential: Credential::Bot,
        tenant: key(ALPHA),
    };
    // The chain that was issued first is listed first.
    let stored = store.chain(&alpha).await.expect("up").expect("stored");
    let expires_at = stored.chain.expires_at.expect("it rotates");
    let hour = Duration::from_secs(3600);
    let nearest = figures(expires_at - hour).await.nearest_expiry;
    assert_eq!(nearest, Some(hour));
    life.advance(20 * 3600);
    let now = life.app.fake.clock().now();
    let due_at = stored.chain.due_at.expect("it rotates");
    let overdue = now.duration_since(due_at).expect("it is due");
    assert_eq!(figures(now).await.oldest_overdue, Some(overdue));

    let mut dies = |chain: Option<&Chain>| {
        let mut next = chain?.clone();
        next.is_dead = true;
        next.due_at = None;
        Some(next)
    };
    let died = store.update(&alpha, None, &mut dies).await;
    died.expect("up").expect("stored");
    let chains = figures(now).await.chains;
    assert_eq!((chains.dead, chains.idle, chains.expired), (1, 0, 1));

    life.host.set_failing(true);
    life.app.fake.uninstall(ALPHA);
    let event = life.app.fake.app_uninstalled(ALPHA);
    life.deliver(&event).await.expect_err("the hook fails");
    let figures = figures(now + Duration::from_secs(30)).await;
    assert_eq!(
        (figures.departures_waiting, figures.queues["departure"]),
        (1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_waits_for_another_process_is_counted_once() {
    let recorder = DebuggingRecorder::new();
    let seen = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let stage = Stage::installed().await;
    let another = stage.another().await.rotator();
    let (first, held) = stage.held();
    stage.expire();
    let first = spawn_caller(&first);
    held.answered().await;
    seen.snapshot();
    let waiting = spawn_caller(&another);
    // Long enough for several looks at the lease.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_counted(&seen, "a wait", &[("lease_waits_total", 1.0)]);
    held.release();
    for caller in [first, waiting] {
        let token = caller.await.expect("no panic");
        token.expect("Slack has refreshed it");
    }
}

#[tokio::test(start_paused = true)]
async fn the_results_of_the_key_provider_are_counted() {
    let recorder = DebuggingRecorder::new();
    let seen = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let app = ClientId::new("100000000001.200000000002").expect("an id");
    for (fault, result) in [
        (providers::Fault::Down, "unavailable"),
        (providers::Fault::Refused, "refused"),
        (providers::Fault::Hangs, "timeout"),
    ] {
        let keys = Remote::new();
        keys.set(fault);
        let opened = EncryptedStore::open(MemoryBackend::default(), keys, app.clone()).await;
        opened.expect_err("there is no key");
        let series = format!("key_provider_calls_total result={result}");
        assert_eq!(changes(&seen).0, Series::from([(series, 1.0)]));
    }
}

#[tokio::test]
async fn a_revoked_authorization_is_counted_by_its_kind() {
    let recorder = DebuggingRecorder::new();
    let seen = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let life = Life::new().await;
    life.install(ADA).await;
    life.advance(600);
    seen.snapshot();
    assert!(life.app.fake.revoke_user(ALPHA, ADA));
    for event in life.app.fake.take_events() {
        life.handled(&event).await;
    }
    let revoked = [
        (
            "lifecycle_events_total event=tokens_revoked,outcome=revoked",
            1.0,
        ),
        ("revocations_total kind=user", 1.0),
    ];
    assert_counted(&seen, "the event", &revoked);
}

/// Lets two processes read before either commits.
struct Together(Barrier);

#[async_trait::async_trait]
impl Hooks for Together {
    async fn before(&self, call: Call<'_>) -> Result<(), backend::Error> {
        if matches!(call, Call::Commit(_)) {
            self.0.wait().await;
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_is_decided_again_is_counted() {
    let recorder = DebuggingRecorder::new();
    let seen = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let memory: Arc<dyn Backend> = Arc::new(MemoryBackend::default());
    let id = ClientId::new("100000000001.200000000002").expect("an id");
    let app = App::new().await;
    app.install(ADA).await;
    let installation = app.stored(ALPHA, None).await;
    let process = async |backend| {
        let keys = LocalKeyProvider::new(master_key());
        let store = EncryptedStore::open(backend, keys, id.clone()).await;
        store.expect("the database is up")
    };
    let first = process(Arc::clone(&memory)).await;
    first.store(&installation).await.expect("stored");
    let together = Arc::new(Hooked::over(memory, Together(Barrier::new(2))));
    let (one, other) = (
        process(Arc::clone(&together) as Arc<dyn Backend>).await,
        process(together as Arc<dyn Backend>).await,
    );
    let hold = async |store: &EncryptedStore<Arc<dyn Backend>>, reason: &str| {
        let hold = Hold {
            is_on: true,
            reason: reason.to_owned(),
            at: noon(),
        };
        store.hold(&key(ALPHA), &hold).await.expect("stored")
    };
    seen.snapshot();
    // One of the two has to decide again, finds the hold, and commits nothing.
    tokio::join!(hold(&one, "one"), hold(&other, "other"));
    assert_counted(&seen, "two commits", &[("conflicts_total", 1.0)]);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_whose_bot_lacks_a_requested_scope_is_counted() {
    let day = Day::new().await;
    assert!(day.install(ADA).await);
    let front = SlackApp::builder()
        .credentials(credentials(&day.app.fake))
        .signing_secret(day.app.fake.signing_secret())
        .redirect_uri(REDIRECT)
        .scopes("commands,chat:write,users:read,channels:read")
        .store(day.app.store.clone())
        .build();
    let front = front.await.expect("nothing is missing");
    let figures = front.observe().await.expect("the store is up");
    assert_eq!(figures.scope_drift, 1);
    let figures = day.front.observe().await.expect("the store is up");
    assert_eq!(figures.scope_drift, 0);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_tenants_have_the_same_series_as_one() {
    let recorder = DebuggingRecorder::new();
    let seen = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let day = Day::new().await;
    assert!(day.install(ADA).await);
    let stored = day.app.stored(ALPHA, None).await;
    let work = async |team: &str| {
        let chain = ChainKey {
            credential: Credential::Bot,
            tenant: key(team),
        };
        drop(
            day.front
                .rotator()
                .token_for(&chain.tenant, chain.credential)
                .await,
        );
        let event = serde_json::json!({"type": "app_mention", "user": ADA});
        day.deliver(&day.app.fake.event(team, event)).await;
    };
    let known = |id: &str| {
        day.app
            .fake
            .add_workspace(Workspace::new(id, "One of many"));
    };
    known("T0NOBODY001");
    work(ALPHA).await;
    work("T0NOBODY001").await;
    day.front.observe().await.expect("the store is up");
    changes(&seen);
    let of_one = seen.snapshot().into_vec().len();
    for number in 0..TENANTS {
        let id = format!("T1{number:05}");
        let team = Team {
            id: TeamId::new(&*id).expect("an id"),
            name: None,
        };
        let home = Home::Workspace {
            team,
            enterprise: None,
        };
        // A tenth of the tenants is installed, and the others are refused.
        if number % 10 == 0 {
            let at = stored.installed_at;
            let mut copy = Installation::new(stored.app_id.clone(), home, at);
            copy.bot = copy_of_bot(&stored);
            day.app.store.store(&copy).await.expect("the store is up");
        }
        known(&id);
        work(&id).await;
    }
    day.front.observe().await.expect("the store is up");
    let all = seen.snapshot().into_vec();
    assert_eq!(all.len(), of_one);
    for (key, _, help, _) in all {
        assert!(help.is_some(), "{key:?} is described");
        let mut labels = key.key().labels();
        let is_tenant = |text: &str| text.contains("T1") || text.contains(ALPHA);
        assert!(!labels.any(|it| is_tenant(it.value())), "{key:?}");
    }
}

fn copy_of_bot(stored: &Installation) -> Option<slack_installs::Bot> {
    let bot = stored.bot.as_ref()?;
    let grant = slack_installs::Grant {
        access_token: bot.grant.access_token.clone(),
        refresh_token: bot.grant.refresh_token.clone(),
        expires_at: bot.grant.expires_at,
        scopes: bot.grant.scopes.clone(),
    };
    Some(slack_installs::Bot {
        grant,
        id: bot.id.clone(),
        user_id: bot.user_id.clone(),
    })
}

const TENANTS: usize = 10_000;
