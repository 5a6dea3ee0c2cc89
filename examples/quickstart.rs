//! The main job, end to end: *Add to Slack*, an encrypted installation in SQLite, and a handler
//! that gets a live token for exactly its workspace.
//!
//! ```text
//! cargo run --features sqlite,axum,testing --example quickstart            # click through it
//! cargo run --features sqlite,axum,testing --example quickstart -- --once  # it drives itself
//! ```
//!
//! Without credentials it talks to a fake Slack on this machine. To talk to the real Slack, set
//! `SLACK_CLIENT_ID`, `SLACK_CLIENT_SECRET` and `SLACK_SIGNING_SECRET`. Slack sends people back to
//! https only: run a tunnel to this process, and set `SLACK_REDIRECT_URI` to its
//! `/slack/oauth_redirect`. To keep what is installed, set `SLACK_INSTALLS_URL` and
//! `SLACK_INSTALLS_MASTER_KEY`; without them the database and its key end with this run. `PORT` is
//! 3000.

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

/// A slash command. It runs only for requests that Slack signed, from a workspace that has the
/// app, and `token` is of that workspace and of no other.
async fn command(State(app): State<SlackApp>, BotToken(token): BotToken) -> String {
    match app.slack().auth_test(&token).await {
        Ok(test) => {
            let me = test.user_id.map_or_else(String::new, |id| id.to_string());
            let place = test.url.unwrap_or_default();
            format!("Hello! Slack says that my token is live: I am {me} at {place}")
        }
        Err(error) => format!("Slack did not take my token: {error}"),
    }
}

/// Events that are not about the app's own life; those the layer handles.
async fn event(auth: Authorized) {
    println!("an event for {}", auth.installation_key());
}

/// The routes of the app. This is the part to copy.
fn router(app: &SlackApp) -> Router {
    Router::new()
        .route("/slack/command", post(command))
        .route("/slack/events", post(event))
        .layer(app.layer())
        .merge(app.install_routes())
        .with_state(app.clone())
}

/// The real Slack's app, by the environment.
fn real(database: &Path) -> SlackAppBuilder {
    let app = SlackApp::from_env().scopes(SCOPES).app_name(NAME);
    match env::var_os("SLACK_INSTALLS_URL") {
        Some(_) => app,
        None => in_file(app, database),
    }
}

/// The fake Slack's app.
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

/// Keeps installations in this SQLite file, sealed under a key of this run.
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
            format!("port {port} cannot be opened ({error}); set PORT to a free one")
        })?;
    let port = listener.local_addr()?.port();
    if is_real {
        let app = real(&database).build().await?;
        // The flow must begin where it ends: its cookie is for that host only.
        let callback = url::Url::parse(app.provider().redirect_uris()[0].as_str())?;
        println!("Open {} and click Add to Slack.", callback.join("/")?);
        println!(
            "At Slack, set the redirect URL to {callback}, the slash command's URL to {}, and \
             the events' to {}. Ctrl-C ends it.",
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
        println!("Slack is a fake on this machine; nothing leaves it. Ctrl-C ends it.");
        return serve(listener, router, app).await;
    }
    let server = tokio::spawn(serve(listener, router, app.clone()));
    let driven = drive::everything(&slack, &app, &rows, port).await;
    server.abort();
    driven
}

/// Serves until Ctrl-C, with the work in the background.
async fn serve(listener: TcpListener, router: Router, app: SlackApp) -> Result<()> {
    let background = tokio::spawn(app.run());
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    axum::serve(listener, router)
        .with_graceful_shutdown(stop)
        .await?;
    app.shutdown().await;
    Ok(background.await?)
}
