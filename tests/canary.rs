//! Runs the whole app over real HTTP and searches its output for every secret of the run. The
//! output is the database's files, every crate's log at TRACE, all spans with their fields, the
//! metrics, the health check, every error and every `Debug`.

#[macro_use]
mod support;

use std::fmt::Debug;
use std::io;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use http::header::{COOKIE, LOCATION, SET_COOKIE};
use http::{Request, Response, StatusCode};
use metrics_exporter_prometheus::PrometheusBuilder;
use slack_installs::backend::{Backend as _, Change, Expect, Row, Scope, SqliteBackend, Version};
use slack_installs::layer::SlackLayer;
use slack_installs::request::Verifier;
use slack_installs::slack::{HttpTransport, SlackClient, Transport as _};
use slack_installs::store::Credential;
use slack_installs::testing::{FakeSlack, Fault, Rotation};
use slack_installs::web::{Authorized, Verified, install_routes};
use slack_installs::{
    Authorizer, EncryptedStore, InstallConfig, InstallProvider, InstallationStore as _, Lifecycle,
    LocalKeyProvider, MasterKey, RedirectUri, Scopes, SlackApp,
};
use support::app::{ADA, ALPHA, key, parameter, user_id};
use support::leaks::leaks;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use url::Url;

use crate::support::app::credentials;

/// Collects everything that an attacker might see.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<u8>>>);

impl Seen {
    fn bytes(&self, bytes: &[u8]) {
        let mut seen = self.0.lock().expect("no test panics with it");
        seen.extend_from_slice(bytes);
        seen.push(b'\n');
    }

    fn debug(&self, value: &impl Debug) {
        self.bytes(format!("{value:?} {value:#?}").as_bytes());
    }

    fn error(&self, error: &(dyn std::error::Error + 'static)) {
        let mut next = Some(error);
        while let Some(error) = next {
            self.bytes(format!("{error} {error:?}").as_bytes());
            next = error.source();
        }
    }
}

impl io::Write for Seen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .expect("no test panics with it")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Seen {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

async fn handler(auth: Authorized, request: Verified) -> &'static str {
    tracing::info!(?auth, ?request, "a handler that logs what it was given");
    "ok"
}

async fn get(client: &HttpTransport, url: &Url, cookie: &str) -> Response<Bytes> {
    let request = Request::get(url.as_str())
        .header(COOKIE, cookie)
        .body(Bytes::new());
    client
        .send(request.expect("a request"))
        .await
        .expect("the app responds")
}

/// Runs flows that succeed, fail, and end halfway.
async fn flow_all(fake: &FakeSlack, home: &Url, seen: &Seen, secrets: &mut Vec<String>) {
    let browser = HttpTransport::new();
    for step in ["good", "good", "lost", "cancelled", "tampered", "no cookie"] {
        if step == "lost" {
            fake.inject("oauth.v2.access", Fault::lost().after_effect());
        }
        let started = get(&browser, &home.join("slack/install").expect("a path"), "").await;
        let header = |name| started.headers()[name].to_str().expect("visible ASCII");
        let authorize = Url::parse(header(LOCATION)).expect("a URL");
        let cookie = header(SET_COOKIE)
            .split(';')
            .next()
            .expect("a pair")
            .to_owned();
        secrets.push(cookie.split_once('=').expect("a value").1.to_owned());
        let state = parameter(&authorize, "state");
        let mut callback = match step {
            "cancelled" => fake.cancel(&authorize).expect("cancelled"),
            _ => fake.allow(&authorize, ADA).expect("allowed"),
        };
        if step == "tampered" {
            callback = support::app::with_parameter(&callback, "state", Some(&state[1..]));
        }
        let cookie = if step == "no cookie" {
            String::new()
        } else {
            cookie
        };
        let page = get(&browser, &callback, &cookie).await;
        assert_eq!(
            page.status() == StatusCode::OK,
            ["good", "cancelled"].contains(&step),
            "{step}"
        );
        seen.bytes(page.body());
        secrets.push(state);
        secrets.extend(
            callback
                .query_pairs()
                .find(|(name, _)| name == "code")
                .map(|p| p.1.into()),
        );
    }
}

/// Sends requests that are served and requests that are refused.
async fn request_all(fake: &FakeSlack, events: &Url, secrets: &mut Vec<String>) {
    let command = fake.slash_command(ADA, "/hello", "text-CANARY");
    let served = fake
        .deliver(events, &command)
        .await
        .expect("the app responds");
    assert_eq!(served.status(), StatusCode::OK);
    secrets.push(
        command.request(events).headers()["x-slack-signature"]
            .to_str()
            .expect("ASCII")[3..]
            .into(),
    );
    let forged = command
        .clone()
        .with_body("application/json", "{\"text\":\"text-CANARY\"}");
    let mut forged = forged.request(events);
    let zeros = format!("v0={}", "0".repeat(64)).parse().expect("ASCII");
    forged.headers_mut().insert("x-slack-signature", zeros);
    fake.send(forged).await.expect("the app responds");
    let garbage = command.with_body("application/json", "{\"event\":\"text-CANARY\"");
    fake.deliver(events, &garbage)
        .await
        .expect("the app responds");
    secrets.push("text-CANARY".into());
}

/// Refreshes tokens, seals rows again, counts what is stored, and asks for the process's health, with
/// success and without.
async fn operate_all(front: &SlackApp, fake: &FakeSlack, seen: &Seen) {
    let health = async || {
        let health = front.health().await;
        seen.debug(&health);
        seen.bytes(&serde_json::to_vec(&health).expect("it serialises"));
        health
    };
    assert!(health().await.is_ready);
    let (rotator, tenant) = (front.rotator(), key(ALPHA));
    rotator
        .rotate_now(&tenant, Credential::Bot)
        .await
        .expect("Slack refreshes");
    for code in ["internal_error", "bad_client_secret"] {
        fake.inject("oauth.v2.access", Fault::error(code).always());
        let failed = rotator.rotate_now(&tenant, Credential::Bot).await;
        seen.error(&failed.expect_err("Slack refuses"));
        fake.clear_faults();
    }
    seen.debug(&front.observe().await.expect("the database is up"));
    assert!(!health().await.reasons.is_empty(), "Slack rejects the app");
    front.shutdown().await;
    assert!(!health().await.is_ready);
    seen.debug(front);
}

/// Opens what is stored, and rows that do not open.
async fn open_all(
    fake: &FakeSlack,
    events: &Url,
    store: &EncryptedStore<SqliteBackend>,
    seen: &Seen,
    secrets: &mut Vec<String>,
) {
    let installation = store
        .fetch(&key(ALPHA), Some(&user_id(ADA)))
        .await
        .expect("responds");
    let installation = installation.expect("stored");
    seen.debug(&installation);
    secrets.extend(
        installation
            .incoming_webhooks
            .iter()
            .map(|hook| hook.url.expose().to_owned()),
    );
    let rows = store
        .backend()
        .scan(&Scope::Everything, None, 100)
        .await
        .expect("a scan")
        .rows;
    seen.debug(&rows);
    for (place, row) in rows
        .iter()
        .filter(|(place, _)| place.partition.as_str().ends_with(ALPHA))
    {
        let broken = Row {
            version: Version::mint(),
            ..row.clone()
        };
        let put = |row, expect| Change::Put {
            slot: place.slot.clone(),
            row,
            expect,
        };
        let commit = |put| async { store.backend().commit(&place.partition, &[put]).await };
        commit(put(broken, Expect::Any)).await.expect("committed");
        let error = store
            .fetch(&key(ALPHA), Some(&user_id(ADA)))
            .await
            .expect_err("unreadable");
        seen.error(&error);
        let refused = fake
            .deliver(events, &fake.slash_command(ADA, "/hello", ""))
            .await;
        seen.bytes(refused.expect("the app responds").body());
        commit(put(row.clone(), Expect::Any))
            .await
            .expect("committed");
    }
    let token = &installation
        .installation
        .bot
        .expect("a bot")
        .grant
        .access_token;
    fake.uninstall(ALPHA);
    seen.error(
        &SlackClient::new(fake.environment())
            .auth_test(token)
            .await
            .expect_err("uninstalled"),
    );
    for event in fake.take_events() {
        fake.deliver(events, &event)
            .await
            .expect("the app responds");
    }
}

/// Builds the app's front, which requests one more scope than was granted.
async fn front(
    fake: &FakeSlack,
    home: &Url,
    slack: SlackClient,
    store: EncryptedStore<SqliteBackend>,
) -> SlackApp {
    let front = SlackApp::builder()
        .credentials(credentials(fake))
        .signing_secret(fake.signing_secret())
        .redirect_uri(home.join("slack/oauth_redirect").expect("a path"))
        .scopes("incoming-webhook,commands,chat:write,files:write")
        .slack(slack)
        .store(store)
        .build();
    front.await.expect("nothing is missing")
}

async fn reseal_all(store: &EncryptedStore<SqliteBackend>, seen: &Seen) {
    let rotated = store.rotate_data_key().await;
    rotated.expect("the database is up");
    let resealed = store.keys().reseal(None, 1000).await;
    seen.debug(&resealed.expect("the database is up"));
}

/// Asserts that the output has each kind of what is searched.
fn assert_covers(log: &str) {
    assert!(
        log.contains("TRACE") && log.contains(ALPHA),
        "something was logged"
    );
    for part in [
        "refresh{",
        "reseal{",
        "purge{",
        "outcome=\"authorized\"",
        "cause=\"",
        "slack_installs_refresh_attempts_total{",
        "slack_installs_scope_drift_tenants 1",
        "\"reasons\":[\"app_rejected\"",
    ] {
        assert!(log.contains(part), "the output has {part}");
    }
}

#[tokio::test]
async fn no_secret_of_a_whole_run_can_be_seen_anywhere() {
    let seen = Seen::default();
    tracing_subscriber::fmt()
        .with_writer(seen.clone())
        // The outcome and the cause of a span are known when it closes.
        .with_span_events(FmtSpan::FULL)
        .with_env_filter(EnvFilter::new("trace"))
        .init();
    let exporter = PrometheusBuilder::new().install_recorder();
    let exporter = exporter.expect("the first recorder");
    let directory = tempfile::tempdir().expect("a directory");
    let database = directory.path().join("installations.sqlite3");
    let fake = FakeSlack::start().await.expect("a fake Slack");
    fake.rotate_tokens(Rotation::default());
    let master_key = MasterKey::generate();
    let mut secrets = vec![
        master_key.to_base64().to_string(),
        "metadata-CANARY-value".into(),
    ];
    seen.debug(&master_key);

    // The app is built as in the quickstart.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let home = format!(
        "http://localhost:{}/",
        listener.local_addr().expect("an address").port()
    );
    let home = Url::parse(&home).expect("a URL");
    let redirect = RedirectUri::new(home.join("slack/oauth_redirect").expect("a path").as_str());
    let backend = SqliteBackend::open(&database).await.expect("opens");
    let keys = LocalKeyProvider::new(master_key);
    let store = EncryptedStore::open(backend, keys, fake.client_id())
        .await
        .expect("opens");
    let slack = SlackClient::new(fake.environment());
    let credentials = credentials(&fake);
    let scopes = Scopes::from("incoming-webhook,commands,chat:write");
    let mut config = InstallConfig::new(credentials, redirect.expect("loopback"), scopes);
    config.user_scopes = Scopes::from("search:read");
    seen.debug(&config);
    let provider = InstallProvider::new(config, slack.clone(), store.clone(), store.clone());
    let provider = provider.expect("the configuration works");
    let authorizer = Authorizer::new(store.clone());
    let lifecycle = Lifecycle::new(store.clone(), slack.clone());
    let layer = SlackLayer::new(Verifier::new(&fake.signing_secret()), authorizer, lifecycle);
    seen.debug(&(&provider, &store, &slack, &layer, &fake));
    let router: Router = Router::new()
        .route("/slack/events", post(handler))
        .layer(layer)
        .merge(install_routes(&provider));
    tokio::spawn(async move { axum::serve(listener, router).await });

    flow_all(&fake, &home, &seen, &mut secrets).await;
    let events = home.join("slack/events").expect("a path");
    request_all(&fake, &events, &mut secrets).await;
    let front = front(&fake, &home, slack, store.clone()).await;
    operate_all(&front, &fake, &seen).await;
    reseal_all(&store, &seen).await;
    open_all(&fake, &events, &store, &seen, &mut secrets).await;
    let (operator, tenant) = (front.operator(), key(ALPHA));
    let purged = operator.purge(&tenant, "its contract ended").await;
    purged.expect("the database is up");
    seen.bytes(exporter.render().as_bytes());

    for suffix in ["", "-wal", "-shm"] {
        let path = format!("{}{suffix}", database.display());
        seen.bytes(&std::fs::read(path).expect("SQLite keeps three files while it is open"));
    }
    secrets.extend(fake.secrets());
    let seen = seen.0.lock().expect("no test panics with it");
    assert_covers(&String::from_utf8_lossy(&seen));
    assert!(
        leaks(b"..eG94Yi1TRUNSRVQ..", "xoxb-SECRET"),
        "the search finds base64"
    );
    for secret in secrets.iter().filter(|secret| secret.len() >= 8) {
        assert!(
            !leaks(&seen, secret),
            "{} of {} characters leaks",
            &secret[..4],
            secret.len()
        );
    }
}
