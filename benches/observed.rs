//! Measures what metrics and tracing cost a request, on one core: the same requests with an exporter
//! for Prometheus and a subscriber at the level INFO, and without both.
//!
//! Run `cargo bench --features metrics,tower,testing --bench observed`.
//!
//! The exporter and the subscriber are for a whole process and for ever. So each round is a process
//! of its own. The rounds of both kinds alternate, so that other work on the machine affects both
//! alike.

use std::process::Command;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::Request;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::json;
use slack_installs::backend::MemoryBackend;
use slack_installs::secret::AccessToken;
use slack_installs::slack::ClientCredentials;
use slack_installs::testing::{FakeSlack, Workspace, World};
use slack_installs::{
    AppId, Bot, CacheOptions, EncryptedStore, Grant, Home, Installation, InstallationStore as _,
    LocalKeyProvider, MasterKey, Scopes, SlackApp, Team, TeamId, UserId,
};

const OBSERVED: &str = "SLACK_INSTALLS_BENCH_OBSERVED";

fn main() {
    match std::env::var(OBSERVED) {
        Ok(observed) => round(observed == "yes"),
        Err(_) => compare(),
    }
}

/// Runs rounds of both kinds, and compares their medians.
fn compare() {
    let program = std::env::current_exe().expect("this program");
    let round = |observed: &str| {
        let round = Command::new(&program).env(OBSERVED, observed).output();
        let output = round.expect("the round begins").stdout;
        let nanos = String::from_utf8_lossy(&output);
        nanos.trim().parse::<f64>().expect("a number")
    };
    let (mut bare, mut observed) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(round("no"));
        observed.push(round("yes"));
    }
    let (bare, observed) = (median(bare), median(observed));
    println!(
        "verify and authorize an event, {TENANTS} tenants in memory, with the cache, one core"
    );
    println!("without:                  {bare:7.0} ns each");
    println!("with metrics and tracing: {observed:7.0} ns each");
    println!("throughput: {:+.1} %", 100.0 * (bare / observed - 1.0));
}

/// Prints the nanoseconds of one request.
fn round(is_observed: bool) {
    let exporter = is_observed.then(observe);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let each = runtime.expect("a runtime").block_on(measure());
    println!("{each}");
    if let Some(exporter) = exporter {
        let admitted = "slack_installs_requests_total{outcome=\"admitted\"";
        assert!(exporter.render().contains(admitted), "it was observed");
    }
}

fn observe() -> PrometheusHandle {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_writer(std::io::sink)
        .init();
    let exporter = PrometheusBuilder::new().install_recorder();
    exporter.expect("the first recorder")
}

/// Returns the time of one request in the fastest of several parts.
async fn measure() -> f64 {
    let fake = FakeSlack::in_process(World::default());
    let keys = LocalKeyProvider::new(MasterKey::generate());
    let store = EncryptedStore::open(MemoryBackend::default(), keys, fake.client_id()).await;
    let store = store.expect("memory never fails");
    let store = store.with_cache(CacheOptions::default());
    let ids: Vec<_> = (0..TENANTS).map(|it| format!("T0MANY{it:05}")).collect();
    for id in &ids {
        fake.add_workspace(Workspace::new(id, "One of many"));
        let stored = store.store(&installation(&fake.app_id(), id)).await;
        stored.expect("memory never fails");
    }
    let app = SlackApp::builder()
        .credentials(ClientCredentials {
            client_id: fake.client_id(),
            client_secret: fake.client_secret(),
        })
        .signing_secret(fake.signing_secret())
        .redirect_uri("https://bot.example.com/slack/oauth_redirect")
        .scopes("commands")
        .store(store);
    let app = app.build().await.expect("nothing is missing");
    let url = url::Url::parse("https://bot.example.com/slack/events").expect("a URL");
    let requests: Vec<Request<Bytes>> = ids
        .iter()
        .map(|id| {
            let text = "hello ".repeat(100);
            let event = json!({"type": "app_mention", "user": "U0ADMIN0001", "text": text});
            fake.event(id, event).request(&url)
        })
        .collect();
    let verifier = app.verifier();
    let mut best = f64::INFINITY;
    let mut parts = requests.chunks(PART).cycle();
    for _ in 0..PARTS {
        let part = parts.next().expect("the cycle never ends");
        let begun = Instant::now();
        for request in part {
            let body = request.body().clone();
            let verified = verifier.verify(request.headers(), body);
            let admitted = app.serve(verified.expect("it is signed")).await;
            admitted.expect("it is installed").done().await;
        }
        let each = begun.elapsed().as_nanos() as f64 / part.len() as f64;
        best = best.min(each);
    }
    best
}

fn installation(app: &AppId, team: &str) -> Installation {
    let team = Team {
        id: TeamId::new(team).expect("an id"),
        name: None,
    };
    let home = Home::new(None, Some(team), false).expect("a workspace");
    let mut installation = Installation::new(app.clone(), home, SystemTime::now());
    installation.bot = Some(Bot {
        user_id: UserId::new("U0BOT000001").expect("an id"),
        id: None,
        grant: Grant {
            access_token: AccessToken::new("xoxb-bench").expect("a token"),
            refresh_token: None,
            expires_at: None,
            scopes: Scopes::from("commands"),
        },
    });
    installation
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Odd, so that the median is one of the values.
const ROUNDS: usize = 21;
/// A part is short, so that most parts end before another program gets the core.
const PART: usize = 50;
const PARTS: usize = 400;
const TENANTS: u32 = 1000;
