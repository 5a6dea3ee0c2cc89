//! Measures what the layer adds to a request, on one core: it verifies, resolves and authorizes an
//! event from memory. Compares this with the minimum for any such layer: the HMAC of the same body
//! and one read of the same rows.
//!
//! Run `cargo bench --features tower,testing --bench layer`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use ring::hmac;
use serde_json::json;
use slack_installs::backend::{Backend, MemoryBackend, Partition, Slot};
use slack_installs::request::Verifier;
use slack_installs::secret::AccessToken;
use slack_installs::testing::FakeSlack;
use slack_installs::{
    AppId, Authorizer, Bot, CacheOptions, EncryptedStore, Grant, Home, Installation,
    InstallationStore as _, LocalKeyProvider, MasterKey, Scopes, Team, TeamId, UserId,
};

const TENANT: &str = "T0ALPHA0001";

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(run());
}

async fn run() {
    let fake = FakeSlack::in_process(slack_installs::testing::World::default());
    let backend = Arc::new(MemoryBackend::default());
    let keys = LocalKeyProvider::new(MasterKey::generate());
    let store = EncryptedStore::open(Arc::clone(&backend), keys, fake.client_id()).await;
    let store = store.expect("memory never fails");
    let store = store.with_cache(CacheOptions::default());
    for number in 0..TENANTS {
        let id = match number {
            0 => TENANT.to_owned(),
            number => format!("T0MANY{number}"),
        };
        store
            .store(&installation(&fake.app_id(), &id))
            .await
            .expect("stored");
    }
    let verifier = Verifier::new(&fake.signing_secret());
    let authorizer = Authorizer::new(store);
    let event = json!({"type": "app_mention", "user": "U0ADMIN0001", "text": "hello ".repeat(100)});
    let url = url::Url::parse("https://bot.example.com/slack/events").expect("a URL");
    let request: Request<Bytes> = fake.event(TENANT, event).request(&url);
    let (head, body) = request.into_parts();
    println!(
        "an event of {} bytes, {TENANTS} tenants in memory, with the cache, one core",
        body.len()
    );

    let layer = measure(async || {
        let verified = verifier
            .verify(&head.headers, body.clone())
            .expect("it is signed");
        let authorized = authorizer
            .authorize(&verified)
            .await
            .expect("it is installed");
        assert!(authorized.bot_token().is_some());
    })
    .await;

    let key = hmac::Key::new(hmac::HMAC_SHA256, fake.signing_secret().expose().as_bytes());
    let partition = format!("{}/{TENANT}", fake.client_id());
    let partition = Partition::new(partition).expect("a name");
    let slots = ["install", "bot", "user/U0ADMIN0001"].map(|slot| Slot::new(slot).expect("a name"));
    let signed = [b"v0:1790000000:", &body[..]].concat();
    let bare = measure(async || {
        std::hint::black_box(hmac::sign(&key, &signed));
        let rows = backend
            .read(&partition, &slots)
            .await
            .expect("memory never fails");
        assert!(rows[0].is_some());
    })
    .await;

    let per_second = |each: Duration| 1.0 / each.as_secs_f64();
    println!(
        "layer: {:9.0} requests/s ({layer:?} each)",
        per_second(layer)
    );
    println!("bare:  {:9.0} requests/s ({bare:?} each)", per_second(bare));
    println!(
        "ratio: {:.2} times the bare cost",
        layer.as_secs_f64() / bare.as_secs_f64()
    );
}

/// Returns the time of one call in the fastest of several rounds. Other work on the machine affects
/// that round least.
async fn measure(call: impl AsyncFn()) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for _ in 0..CALLS {
            call().await;
        }
        best = best.min(begun.elapsed() / CALLS);
    }
    best
}

fn installation(app: &AppId, team: &str) -> Installation {
    let team = Team {
        id: TeamId::new(team).expect("an id"),
        name: None,
    };
    let home = Home::new(None, Some(team), false).expect("a workspace");
    let mut installation = Installation::new(app.clone(), home, std::time::SystemTime::now());
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

const CALLS: u32 = 2000;
const ROUNDS: usize = 10;
const TENANTS: usize = 1000;
