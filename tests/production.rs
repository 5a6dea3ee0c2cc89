//! Runs `examples/production.rs` as a process, with a fake Slack over HTTP and a real Postgres.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "the servers are shared with other tests"
)]

#[path = "support"]
mod support {
    pub mod postgres;
    pub mod server;
}

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{COOKIE, LOCATION, SET_COOKIE};
use http::{Request, Response, StatusCode};
use slack_installs::slack::{HttpTransport, Transport as _};
use slack_installs::testing::{FakeSlack, World};
use sqlx::Row as _;
use url::Url;

use support::postgres::{Postgres, fetch};
use support::server::free_port;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_production_example_installs_serves_purges_and_ends_in_order() {
    // Postgres keeps its default settings, because the app refuses a server that may lose commits.
    let postgres = Postgres::start_with(&[]).await;
    let database = postgres.database("production").await;
    let port = free_port();
    let callback = format!("http://localhost:{port}/slack/oauth_redirect");
    let world = World::default().with_redirect_url(&callback);
    let slack = FakeSlack::start_with(world).await.expect("a free port");
    slack.rotate_tokens(slack_installs::testing::Rotation::default());
    let mut process = Process::start(&slack, &database, port, &callback);
    let app = Url::parse(&format!("http://localhost:{port}/")).expect("a URL");
    let (command, events) = (at(&app, "slack/command"), at(&app, "slack/events"));

    let page = install(&slack, &app).await;
    assert_eq!(page.status(), StatusCode::OK, "{:?}", page.body());
    assert_eq!(count(&database, "slack_installations").await, 1);

    // Adds two notes. The handler calls Slack with the bot's valid token.
    let token = slack.bot_token(WORKSPACE).expect("installed");
    let bot = slack.bot_user(WORKSPACE);
    for nth in 1..=2 {
        let delivery = slack.slash_command(ADA, "/note", "buy milk");
        let answer = slack
            .deliver(&command, &delivery)
            .await
            .expect("it responds");
        let expected = format!("Noted by <@{bot}>. Notes here: {nth}.");
        assert_eq!(String::from_utf8_lossy(answer.body()), expected);
    }
    // The flow makes one call, and each note makes one.
    assert!(slack.calls_with("auth.test", token.expose()) >= 2);
    let notes = fetch(&database, "SELECT tenant, note FROM notes").await;
    assert_eq!(notes.len(), 2);
    assert_eq!(notes[0].get::<&str, _>(0), WORKSPACE);
    assert_eq!(notes[0].get::<&str, _>(1), "buy milk");

    // The process tells the load balancer that it works.
    for path in ["health/live", "health/ready"] {
        let health = get(&at(&app, path), "").await;
        assert_eq!(health.status(), StatusCode::OK, "{path}");
        let expected = r#"{"is_live":true,"is_ready":true,"reasons":[]}"#;
        assert_eq!(String::from_utf8_lossy(health.body()), expected, "{path}");
    }

    // A request that Slack did not sign writes nothing.
    let forged = slack.slash_command(ADA, "/note", "forged");
    let mut forged = forged.request(&command);
    let wrong = format!("v0={}", "0".repeat(64));
    let headers = forged.headers_mut();
    headers.insert("x-slack-signature", wrong.parse().expect("a header"));
    let refused = slack.send(forged).await.expect("it responds");
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(count(&database, "notes").await, 2);

    // Another tenant's notes are kept.
    support::postgres::execute(
        &database,
        "INSERT INTO notes VALUES ('T0OTHER0001', 0, 'x')",
    )
    .await;
    assert!(slack.uninstall(WORKSPACE));
    for event in slack.take_events() {
        let answer = slack.deliver(&events, &event).await.expect("it responds");
        assert_eq!(answer.status(), StatusCode::OK);
    }
    assert_eq!(count(&database, "slack_installations").await, 0);
    let left = fetch(&database, "SELECT tenant FROM notes").await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].get::<&str, _>(0), "T0OTHER0001");
    let late = slack.slash_command(ADA, "/note", "late");
    let answer = slack.deliver(&command, &late).await.expect("it responds");
    assert!(String::from_utf8_lossy(answer.body()).contains("not installed"));

    process.terminate();
}

/// The example's process. It is killed when this value is dropped, also if the test fails.
struct Process(Child);

impl Process {
    /// Starts the example, and waits until it listens.
    fn start(slack: &FakeSlack, database: &str, port: u16, callback: &str) -> Self {
        let tests = std::env::current_exe().expect("a test has a file");
        let built = tests.parent().and_then(|deps| deps.parent());
        let example = built.expect("target/debug").join("examples/production");
        let mut child = Command::new(example)
            .env("PORT", port.to_string())
            .env("SLACK_API_URL", slack.environment().base().as_str())
            .env("SLACK_CLIENT_ID", slack.client_id().as_str())
            .env("SLACK_CLIENT_SECRET", slack.client_secret().expose())
            .env("SLACK_SIGNING_SECRET", slack.signing_secret().expose())
            .env("SLACK_REDIRECT_URI", callback)
            .env("SLACK_INSTALLS_URL", database)
            .env("SLACK_INSTALLS_MASTER_KEY", KEY)
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo builds the examples with the tests");
        let output = child.stdout.take().expect("it is piped");
        let process = Self(child);
        let mut lines = BufReader::new(output).lines();
        let listening = lines.any(|line| line.is_ok_and(|line| line.starts_with("listening")));
        assert!(listening, "the example ended early");
        // Keeps reading the output, because a full pipe would block the process.
        std::thread::spawn(move || lines.for_each(drop));
        process
    }

    fn terminate(&mut self) {
        let id = self.0.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status();
        assert!(sent.is_ok_and(|sent| sent.success()));
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().expect("a child process") {
                return assert_eq!(status.code(), Some(0), "{status}");
            }
            assert!(Instant::now() < deadline, "the example does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails if the process has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Goes through the install flow as Ada's browser does.
async fn install(slack: &FakeSlack, app: &Url) -> Response<Bytes> {
    let started = get(&at(app, "slack/install"), "").await;
    assert_eq!(started.status(), StatusCode::FOUND);
    let header = |name| started.headers()[name].to_str().expect("text");
    let authorize = Url::parse(header(LOCATION.as_str())).expect("a URL");
    let cookie = header(SET_COOKIE.as_str())
        .split(';')
        .next()
        .expect("a cookie");
    let callback = slack.allow(&authorize, ADA).expect("allowed");
    get(&callback, cookie).await
}

async fn get(url: &Url, cookie: &str) -> Response<Bytes> {
    let request = Request::get(url.as_str())
        .header(COOKIE, cookie)
        .body(Bytes::new());
    let request = request.expect("well formed");
    HttpTransport::new()
        .send(request)
        .await
        .expect("it responds")
}

async fn count(database: &str, table: &str) -> i64 {
    let rows = fetch(database, &format!("SELECT count(*) FROM {table}")).await;
    rows[0].get(0)
}

fn at(app: &Url, path: &str) -> Url {
    app.join(path).expect("a path")
}

const ADA: &str = "U0ADMIN0001";
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const PATIENCE: Duration = Duration::from_secs(60);
const WORKSPACE: &str = "T0ALPHA0001";
