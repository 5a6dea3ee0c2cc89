//! An app to copy: axum and Postgres, token rotation, a job over all installations, and an orderly
//! shutdown. When a workspace removes the app, the app deletes its own data of that workspace.
//!
//! ```text
//! cargo run --features postgres,axum --example production
//! ```
//!
//! It needs the variables of [`SlackApp::from_env`], with a `postgres://…` URL in
//! `SLACK_INSTALLS_URL`. It listens on `PORT`, or on 3000 if `PORT` is not set. You can run many
//! processes of it, behind a proxy that terminates TLS.

use std::env;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use slack_installs::Health;
use slack_installs::prelude::*;
use slack_installs::request::VerifiedRequest;
use slack_installs::secret::AccessToken;
use slack_installs::slack::{Environment, SlackClient};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use notes::Notes;

#[path = "production/notes.rs"]
mod notes;
#[path = "production/socket.rs"]
mod socket;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Clone)]
struct Bot {
    app: SlackApp,
    notes: Notes,
}

/// Handles `/note TEXT`, over HTTP or Socket Mode. `tenant` and `token` belong together. Use no
/// other ids of the request to find data.
async fn note(
    bot: &Bot,
    request: &VerifiedRequest,
    tenant: &InstallationKey,
    token: &AccessToken,
) -> Result<String> {
    #[derive(serde::Deserialize)]
    struct Command {
        text: String,
    }
    let command: Command = request.payload()?;
    let count = bot.notes.add(tenant, &command.text).await?;
    let me = bot.app.slack().auth_test(token).await?;
    let me = me.user_id.ok_or("a bot has an id")?;
    Ok(format!("Noted by <@{me}>. Notes here: {count}."))
}

/// Handles the slash command over HTTP. The layer has already verified the request and found the
/// tokens of its tenant.
async fn command(
    State(bot): State<Bot>,
    request: Verified,
    auth: Authorized,
    token: BotToken,
) -> std::result::Result<String, StatusCode> {
    let noted = note(&bot, &request, &auth.installation_key(), &token).await;
    noted.map_err(|error| {
        tracing::error!(tenant = %auth.installation_key(), error, "a note could not be stored");
        StatusCode::INTERNAL_SERVER_ERROR
    })
}

/// Handles all events except those about the app's own installations, which the layer handles.
async fn event(request: Verified, auth: Authorized) {
    tracing::info!(tenant = %auth.installation_key(), event = request.event_type(), "an event");
}

/// Responds to the load balancer: whether this process can serve requests.
async fn ready(State(bot): State<Bot>) -> (StatusCode, Json<Health>) {
    let health = bot.app.health().await;
    (status(health.is_ready), Json(health))
}

/// Responds to the supervisor, which restarts a process that is not live.
async fn live(State(bot): State<Bot>) -> (StatusCode, Json<Health>) {
    let health = bot.app.health().await;
    (status(health.is_live), Json(health))
}

fn status(is_well: bool) -> StatusCode {
    if is_well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

/// Runs a job over all installations, at the start and then once a day.
async fn nightly(app: SlackApp) {
    let mut nights = tokio::time::interval(Duration::from_secs(24 * 60 * 60));
    loop {
        nights.tick().await;
        if let Err(error) = check_all(&app).await {
            tracing::error!(error, "the nightly job stopped early");
        }
    }
}

async fn check_all(app: &SlackApp) -> Result<()> {
    let mut from = None;
    loop {
        let page = app.store().list(from, 100).await?;
        for installation in page.installations {
            let tenant = installation.home.key();
            // If one tenant fails, continue with the others. A real job would use the token here.
            match app.token_for(&tenant).await {
                Ok(_) => tracing::info!(%tenant, "has a current token"),
                Err(error) => tracing::warn!(%tenant, %error, "has no current token"),
            }
        }
        from = page.next;
        if from.is_none() {
            return Ok(());
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().init();
    let notes = Notes::open(&env::var("SLACK_INSTALLS_URL")?).await?;
    // For tests with a fake Slack. Your own app does not need this.
    let slack = match env::var("SLACK_API_URL") {
        Ok(url) => Environment::at(&url)?,
        Err(_) => Environment::commercial(),
    };
    let app = SlackApp::from_env()
        .scopes("commands,chat:write")
        .slack(SlackClient::new(slack))
        .lifecycle_hooks(notes.clone())
        .build()
        .await?;
    let background = tokio::spawn(app.run());
    let nights = tokio::spawn(nightly(app.clone()));

    let bot = Bot {
        app: app.clone(),
        notes,
    };
    let router = Router::new()
        .route("/slack/command", post(command))
        .route("/slack/events", post(event))
        .layer(app.layer())
        .merge(app.install_routes())
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .with_state(bot);
    let port = env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    println!("listening on port {}", listener.local_addr()?.port());

    // Shutdown order: first stop new requests, then new refreshes, then the background work.
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    axum::serve(listener, router)
        .with_graceful_shutdown(stop)
        .await?;
    nights.abort();
    app.shutdown().await;
    background.await?;
    Ok(())
}
