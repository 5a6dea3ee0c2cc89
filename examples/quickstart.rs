//! The main job, end to end: *Add to Slack*, an encrypted installation in SQLite, and a handler
//! that gets a live token for exactly its workspace.
//!
//! ```text
//! cargo run --features sqlite,axum,testing --example quickstart            # click through it
//! cargo run --features sqlite,axum,testing --example quickstart -- --once  # it drives itself
//! ```
//!
//! Without credentials it talks to a fake Slack on this machine, and keeps its database and key
//! for this run only. To talk to the real Slack, set `SLACK_CLIENT_ID`, `SLACK_CLIENT_SECRET`,
//! `SLACK_SIGNING_SECRET`, `SLACK_REDIRECT_URI` (https; a tunnel to this process will do) and
//! `SLACK_INSTALLS_MASTER_KEY`; `PORT` (3000) and `SLACK_INSTALLS_DB` may be set too.

use std::env;
use std::error::Error;
use std::path::PathBuf;

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use slack_installs::axum::{Authorized, install_routes};
use slack_installs::backend::SqliteBackend;
use slack_installs::request::Verifier;
use slack_installs::secret::{ClientSecret, SigningSecret};
use slack_installs::slack::{ClientCredentials, Environment, SlackClient};
use slack_installs::testing::FakeSlack;
use slack_installs::tower::SlackLayer;
use slack_installs::{
    Authorizer, ClientId, EncryptedStore, InstallConfig, InstallProvider, Lifecycle,
    LocalKeyProvider, MasterKey, RedirectUri, Scopes,
};
use tempfile::TempDir;
use tokio::net::TcpListener;

#[path = "quickstart/drive.rs"]
mod drive;
#[path = "quickstart/pages.rs"]
mod pages;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;
type Store = EncryptedStore<SqliteBackend>;

/// The app: what a bot of your own would have.
#[derive(Clone)]
struct Bot {
    slack: SlackClient,
    store: Store,
    /// Only to have something to click; a real app has no such thing.
    fake: Option<FakeSlack>,
}

/// A slash command. It runs only for requests that Slack signed, from a workspace that has the
/// app, and `auth` has the tokens of that workspace and of no other.
async fn command(State(bot): State<Bot>, auth: Authorized) -> String {
    let Some(token) = auth.bot_token() else {
        return "This app has no bot here.".into();
    };
    match bot.slack.auth_test(token).await {
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
    println!("an event for {:?}", auth.team_id());
}

/// What an app needs to know about itself.
struct Settings {
    credentials: ClientCredentials,
    signing_secret: SigningSecret,
    environment: Environment,
    redirect_uri: RedirectUri,
    master_key: MasterKey,
    database: PathBuf,
}

impl Settings {
    /// Of a real app, if its credentials are set.
    fn from_env() -> Result<Option<Self>> {
        let Ok(client_id) = env::var("SLACK_CLIENT_ID") else {
            return Ok(None);
        };
        let var = |name: &str| env::var(name).map_err(|_| format!("{name} is not set"));
        let database =
            env::var("SLACK_INSTALLS_DB").unwrap_or_else(|_| "slack-installs.sqlite3".into());
        Ok(Some(Self {
            credentials: ClientCredentials {
                client_id: ClientId::new(client_id)?,
                client_secret: ClientSecret::new(var("SLACK_CLIENT_SECRET")?)?,
            },
            signing_secret: SigningSecret::new(var("SLACK_SIGNING_SECRET")?)?,
            environment: Environment::commercial(),
            redirect_uri: RedirectUri::new(&var("SLACK_REDIRECT_URI")?)?,
            master_key: MasterKey::from_env("SLACK_INSTALLS_MASTER_KEY")?,
            database: database.into(),
        }))
    }

    /// Of the fake Slack's app, on this port.
    fn fake(fake: &FakeSlack, port: u16, directory: &TempDir) -> Result<Self> {
        Ok(Self {
            credentials: ClientCredentials {
                client_id: fake.client_id(),
                client_secret: fake.client_secret(),
            },
            signing_secret: fake.signing_secret(),
            environment: fake.environment(),
            redirect_uri: RedirectUri::new(&format!(
                "http://localhost:{port}/slack/oauth_redirect"
            ))?,
            master_key: MasterKey::generate(),
            database: directory.path().join("installations.sqlite3"),
        })
    }
}

/// Puts the app together. This is the part to copy.
async fn app(settings: Settings, fake: Option<FakeSlack>) -> Result<(Router, Store)> {
    // Where installations are kept: one SQLite file, sealed under the master key.
    let app = settings.credentials.client_id.clone();
    let backend = SqliteBackend::open(&settings.database).await?;
    let keys = LocalKeyProvider::new(settings.master_key);
    let store = EncryptedStore::open(backend, keys, app).await?;

    // How people install it.
    let slack = SlackClient::new(settings.environment);
    let scopes = Scopes::from("commands,chat:write");
    let config = InstallConfig::new(settings.credentials, settings.redirect_uri, scopes);
    let provider = InstallProvider::new(config, slack.clone(), store.clone(), store.clone())?;

    // What guards the handlers: signature, tenant, tokens, and uninstallation.
    let guard = SlackLayer::new(
        Verifier::new(&settings.signing_secret),
        Authorizer::new(store.clone()),
        Lifecycle::new(store.clone(), slack.clone()),
    );

    let bot = Bot {
        slack,
        store: store.clone(),
        fake,
    };
    let router = Router::new()
        .route("/slack/command", post(command))
        .route("/slack/events", post(event))
        .layer(guard)
        .merge(install_routes(&provider))
        .route("/", get(pages::home))
        .route("/fake/command", post(pages::fake_command))
        .route("/fake/uninstall", post(pages::fake_uninstall))
        .with_state(bot);
    Ok((router, store))
}

#[tokio::main]
async fn main() -> Result<()> {
    let once = env::args().any(|argument| argument == "--once");
    let directory = TempDir::new()?;
    let real = if once { None } else { Settings::from_env()? };
    let fake = match real {
        Some(_) => None,
        None => Some(FakeSlack::start().await?),
    };
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
    let settings = match (real, &fake) {
        (Some(settings), _) => settings,
        (None, Some(fake)) => Settings::fake(fake, port, &directory)?,
        (None, None) => unreachable!("one of the two was made above"),
    };
    let (router, store) = app(settings, fake.clone()).await?;
    let server = axum::serve(listener, router);
    match (once, fake) {
        (true, Some(fake)) => {
            let server = tokio::spawn(server.into_future());
            let driven = drive::everything(&fake, &store, port).await;
            server.abort();
            driven
        }
        (_, fake) => {
            println!("Open http://localhost:{port}/ and click Add to Slack.");
            match fake {
                Some(_) => println!("Slack is a fake on this machine; nothing leaves it."),
                None => println!(
                    "At Slack, point the slash command to /slack/command and events to \
                     /slack/events of your public address."
                ),
            }
            println!("Ctrl-C ends it.");
            Ok(server.await?)
        }
    }
}
