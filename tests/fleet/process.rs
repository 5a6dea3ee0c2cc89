//! The inside of a process: a rotator over a real database, a real socket to Slack, and a clock
//! that the parent moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use slack_installs::backend::{
    Backend, PostgresBackend, PostgresOptions, RedisBackend, RedisOptions,
};
use slack_installs::rotation::WorkerConfig;
use slack_installs::secret::ClientSecret;
use slack_installs::slack::{ClientCredentials, Environment, HttpTransport, SlackClient};
use slack_installs::store::Credential;
use slack_installs::{
    ClientId, Clock, EncryptedStore, InstallationKey, LocalKeyProvider, MasterKey, RotationConfig,
    TeamId, TokenRotator,
};
use tokio::sync::mpsc;

use crate::gate::{Gate, say};
use crate::hooked::Hooked;
use crate::hooked_transport::HookedTransport;
use crate::orders::{Order, Orders, Word, fingerprint, start};

/// Follows the orders from the input until the input ends.
pub(crate) fn run() {
    // The runtime's clock can only be moved with a single thread.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(obey());
}

async fn obey() {
    let mut input = read_input();
    let Some(orders) = input.recv().await else {
        return;
    };
    let orders: Orders = serde_json::from_str(&orders).expect("the parent writes orders");
    let gate = Gate::default();
    let passed = Arc::new(AtomicU64::new(millis(orders.passed)));
    let rotator = rotator(&orders, &gate, &passed).await;
    if orders.is_held {
        gate.hold();
    }
    say(&Word::Ready);
    while let Some(order) = input.recv().await {
        match serde_json::from_str(&order).expect("the parent writes orders") {
            Order::Ask(team) => drop(tokio::spawn(ask(rotator.clone(), team))),
            Order::End => {
                say(&Word::Ended(rotator.shutdown(PATIENCE).await));
                return;
            }
            Order::Free => gate.free(),
            Order::Go => gate.go(),
            Order::Jump(by) => {
                passed.fetch_add(millis(by), Ordering::SeqCst);
                // Moves the monotonic clock too, and fires every timer that is due by then.
                tokio::time::pause();
                tokio::time::advance(by).await;
                tokio::time::resume();
            }
            Order::Work => {
                let rotator = rotator.clone();
                drop(tokio::spawn(async move {
                    rotator.work(WorkerConfig::default()).await;
                }));
            }
        }
    }
}

async fn ask(rotator: TokenRotator, team: String) {
    let team = InstallationKey::workspace(TeamId::new(team).expect("an id"));
    say(&match rotator.token_for(&team, Credential::Bot).await {
        Ok(token) => Word::Token(fingerprint(token.access_token.expose())),
        Err(error) => Word::Failed {
            why: error.to_string(),
            is_transient: error.is_transient(),
        },
    });
}

async fn rotator(orders: &Orders, gate: &Gate, passed: &Arc<AtomicU64>) -> TokenRotator {
    let passed = Arc::clone(passed);
    let clock =
        Clock::from_fn(move || start() + Duration::from_millis(passed.load(Ordering::SeqCst)));
    let client_id = ClientId::new(&*orders.client_id).expect("an id");
    let provider = LocalKeyProvider::new(MasterKey::parse(&orders.master_key).expect("a key"));
    let backend = Hooked::over(open(&orders.database).await, gate.clone());
    let store = EncryptedStore::open(backend, provider, client_id.clone()).await;
    let slack = SlackClient::with_transport(
        Environment::at(&orders.slack).expect("a URL on loopback"),
        HookedTransport::over(HttpTransport::new(), gate.clone()),
    );
    let config = RotationConfig::new(ClientCredentials {
        client_id,
        client_secret: ClientSecret::new(&*orders.client_secret).expect("plausible"),
    });
    let store = store.expect("the database is up");
    TokenRotator::new(
        config,
        slack.with_clock(clock.clone()),
        store.with_clock(clock.clone()),
    )
    .with_clock(clock)
}

pub(crate) async fn open(url: &str) -> Arc<dyn Backend> {
    if url.starts_with("redis://") {
        let backend = RedisBackend::open(url, RedisOptions::default()).await;
        return Arc::new(backend.expect("the server is durable enough"));
    }
    let options = PostgresOptions {
        pool_size: 2,
        skip_durability_checks: true,
        ..PostgresOptions::default()
    };
    let backend = PostgresBackend::connect_with(url, options).await;
    Arc::new(backend.expect("the server is up"))
}

/// Returns the lines of the input as they arrive.
fn read_input() -> mpsc::UnboundedReceiver<String> {
    let (lines, input) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let read = std::io::stdin().lines().map_while(Result::ok);
        // Fails when the receiver has been dropped.
        read.map(|line| lines.send(line)).all(|sent| sent.is_ok())
    });
    input
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("the time fits into 64 bits of milliseconds")
}

/// Far longer than anything in progress can take.
const PATIENCE: Duration = Duration::from_secs(60);
