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
//! `/slack/oauth_redirect`. To keep what is installed, set `SLACK_INSTALLS_MASTER_KEY` and
//! `SLACK_INSTALLS_DB`; without them the database and its key end with this run. `PORT` is 3000.

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
use url::Url;

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
    /// Of a real app, by the environment.
    fn real(client_id: String, port: u16, directory: &TempDir) -> Result<Self> {
        let var = |name: &str| env::var(name).map_err(|_| format!("{name} is not set"));
        let redirect_uri = match env::var("SLACK_REDIRECT_URI") {
            Ok(uri) => uri,
            Err(_) => {
                println!("Slack sends people back to https only; SLACK_REDIRECT_URI is not set.");
                local_redirect(port)
            }
        };
        let (master_key, database) = match env::var("SLACK_INSTALLS_DB") {
            Ok(path) => (
                MasterKey::from_env("SLACK_INSTALLS_MASTER_KEY")?,
                path.into(),
            ),
            Err(_) => (MasterKey::generate(), directory.path().join(DATABASE)),
        };
        Ok(Self {
            credentials: ClientCredentials {
                client_id: ClientId::new(client_id)?,
                client_secret: ClientSecret::new(var("SLACK_CLIENT_SECRET")?)?,
            },
            signing_secret: SigningSecret::new(var("SLACK_SIGNING_SECRET")?)?,
            environment: Environment::commercial(),
            redirect_uri: RedirectUri::new(&redirect_uri)?,
            master_key,
            database,
        })
    }

    /// Of the fake Slack's app.
    fn fake(fake: &FakeSlack, port: u16, directory: &TempDir) -> Result<Self> {
        Ok(Self {
            credentials: ClientCredentials {
                client_id: fake.client_id(),
                client_secret: fake.client_secret(),
            },
            signing_secret: fake.signing_secret(),
            environment: fake.environment(),
            redirect_uri: RedirectUri::new(&local_redirect(port))?,
            master_key: MasterKey::generate(),
            database: directory.path().join(DATABASE),
        })
    }
}

fn local_redirect(port: u16) -> String {
    format!("http://localhost:{port}/slack/oauth_redirect")
}

const DATABASE: &str = "installations.sqlite3";

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
    let client_id = env::var("SLACK_CLIENT_ID").ok().filter(|_| !once);
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
    let Some(client_id) = client_id else {
        let fake = FakeSlack::start().await?;
        let settings = Settings::fake(&fake, port, &directory)?;
        let (router, store) = app(settings, Some(fake.clone())).await?;
        let server = axum::serve(listener, router);
        if !once {
            println!("Open http://localhost:{port}/ and click Add to Slack.");
            println!("Slack is a fake on this machine; nothing leaves it. Ctrl-C ends it.");
            return Ok(server.await?);
        }
        let server = tokio::spawn(server.into_future());
        let driven = drive::everything(&fake, &store, port).await;
        server.abort();
        return driven;
    };
    let settings = Settings::real(client_id, port, &directory)?;
    // The flow must begin where it ends: its cookie is for that host only.
    let callback = Url::parse(settings.redirect_uri.as_str())?;
    let (router, _) = app(settings, None).await?;
    println!("Open {} and click Add to Slack.", callback.join("/")?);
    println!(
        "At Slack, set the redirect URL to {callback}, the slash command's URL to {}, and the \
         events' to {}. Ctrl-C ends it.",
        callback.join("/slack/command")?,
        callback.join("/slack/events")?,
    );
    Ok(axum::serve(listener, router).await?)
}
