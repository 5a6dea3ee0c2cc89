//! The main flow, end to end: *Add to Slack*, an encrypted installation in SQLite, and a handler
//! that gets a valid token for its own workspace.
//!
//! ```text
//! cargo run --features sqlite,axum,testing --example quickstart            # in your browser
//! cargo run --features sqlite,axum,testing --example quickstart -- --once  # automatically
//! ```
//!
//! Without credentials it uses a fake Slack on your machine. To use the real Slack, set
//! `SLACK_CLIENT_ID`, `SLACK_CLIENT_SECRET` and `SLACK_SIGNING_SECRET`. Slack redirects people to
//! https URLs only. So run a tunnel to this process, and set `SLACK_REDIRECT_URI` to the tunnel's
//! `/slack/oauth_redirect`.
//!
//! To keep the installations, set `SLACK_INSTALLS_URL` and `SLACK_INSTALLS_MASTER_KEY`. Otherwise
//! the database and its key are deleted when the program ends. The program listens on `PORT`, or on
//! 3000 if `PORT` is not set.

use std::env;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use pages::Demo;
use slack_installs::backend::SqliteBackend;
use slack_installs::prelude::*;
use slack_installs::slack::{ClientCredentials, SlackClient};
use slack_installs::testing::FakeSlack;
use slack_installs::{MasterKey, SlackAppBuilder};
use tempfile::TempDir;
use tokio::net::TcpListener;

#[path = "quickstart/database.rs"]
mod database;
#[path = "quickstart/drive.rs"]
mod drive;
#[path = "quickstart/pages.rs"]
mod pages;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Handles a slash command. It runs only for requests that Slack signed, from a workspace that
/// installed the app. `token` belongs to that workspace.
async fn command(State(app): State<SlackApp>, BotToken(token): BotToken) -> String {
    match app.slack().auth_test(&token).await {
        Ok(test) => {
            let me = test.user_id.map_or_else(String::new, |id| id.to_string());
            let place = test.url.unwrap_or_default();
            format!("Hello! Slack says that my token is live: I am {me} at {place}")
        }
        Err(error) => format!("Slack rejected my token: {error}"),
    }
}

/// Handles all events except those about the app's own installations, which the layer handles.
async fn event(auth: Authorized) {
    println!("an event for {}", auth.installation_key());
}

/// Returns the routes of the app. This is the part to copy.
fn router(app: &SlackApp) -> Router {
    Router::new()
        .route("/slack/command", post(command))
        .route("/slack/events", post(event))
        .layer(app.layer())
        .merge(app.install_routes())
        .with_state(app.clone())
}

/// Returns the app for the real Slack, configured by the environment.
fn real(database: &Path) -> SlackAppBuilder {
    let app = SlackApp::from_env().scopes(SCOPES).app_name(NAME);
    match env::var_os("SLACK_INSTALLS_URL") {
        Some(_) => app,
        None => in_file(app, database),
    }
}

/// Returns the app for the fake Slack.
fn fake(fake: &FakeSlack, database: &Path, port: u16) -> SlackAppBuilder {
    let app = SlackApp::builder()
        .credentials(ClientCredentials {
            client_id: fake.client_id(),
            client_secret: fake.client_secret(),
        })
        .signing_secret(fake.signing_secret())
        .slack(SlackClient::new(fake.environment()))
        .redirect_uri(format!("http://localhost:{port}/slack/oauth_redirect"))
        .scopes(SCOPES)
        .app_name(NAME)
        .site(format!("http://localhost:{port}/"));
    in_file(app, database)
}

/// Keeps installations in this SQLite file, sealed with a key that only this run has.
fn in_file(app: SlackAppBuilder, database: &Path) -> SlackAppBuilder {
    app.database(format!("sqlite:{}", database.display()))
        .master_key(MasterKey::generate())
}

const NAME: &str = "Quickstart";
const SCOPES: &str = "commands,chat:write";

#[tokio::main]
async fn main() -> Result<()> {
    let once = env::args().any(|argument| argument == "--once");
    let directory = TempDir::new()?;
    let database = directory.path().join("installations.sqlite3");
    let is_real = env::var_os("SLACK_CLIENT_ID").is_some() && !once;
    let port = match env::var("PORT") {
        Ok(port) if !once => port.parse()?,
        _ if once => 0,
        _ => 3000,
    };
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|error| {
            format!("cannot listen on port {port} ({error}); set PORT to a free port")
        })?;
    let port = listener.local_addr()?.port();
    if is_real {
        let app = real(&database).build().await?;
        // The flow's cookie is for one host name only, so the flow must start at its callback's.
        let callback = url::Url::parse(app.provider().redirect_uris()[0].as_str())?;
        println!("Open {} and click Add to Slack.", callback.join("/")?);
        println!(
            "In your app's settings at Slack, set the redirect URL to {callback}, the slash \
             command's URL to {}, and the events' URL to {}. Press Ctrl-C to stop.",
            callback.join("/slack/command")?,
            callback.join("/slack/events")?,
        );
        let router = router(&app).route("/", get(pages::add));
        return serve(listener, router, app).await;
    }
    let slack = FakeSlack::start().await?;
    let app = fake(&slack, &database, port).build().await?;
    let rows = Arc::new(SqliteBackend::open(&database).await?);
    let router = router(&app).merge(Demo::new(slack.clone(), Arc::clone(&rows)).routes());
    if !once {
        println!("Open http://localhost:{port}/ and click Add to Slack.");
        println!("Slack is a fake; nothing leaves this machine. Press Ctrl-C to stop.");
        return serve(listener, router, app).await;
    }
    let server = tokio::spawn(serve(listener, router, app.clone()));
    let driven = drive::everything(&slack, &app, &rows, port).await;
    server.abort();
    driven
}

/// Serves requests and runs the background work until Ctrl-C.
async fn serve(listener: TcpListener, router: Router, app: SlackApp) -> Result<()> {
    let background = tokio::spawn(app.run());
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    axum::serve(listener, router)
        .with_graceful_shutdown(stop)
        .await?;
    app.shutdown().await;
    Ok(background.await?)
}
