//! An axum app for any number of workspaces. It handles `/hello` with slack-morphism's client.
//!
//! slack-installs finds the token that may serve a request. slack-morphism calls Slack's Web API
//! with it. The two crates share only the token.
//!
//! The app needs the variables `SLACK_CLIENT_ID`, `SLACK_CLIENT_SECRET`, `SLACK_SIGNING_SECRET`,
//! `SLACK_REDIRECT_URL` and `SLACK_INSTALLS_MASTER_KEY`. It listens on 127.0.0.1:3000.

use std::env;
use std::error::Error;
use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Form, Router};
use serde::Deserialize;
use slack_installs::web::{Authorized, install_routes};
use slack_installs::backend::MemoryBackend;
use slack_installs::request::Verifier;
use slack_installs::secret::{ClientSecret, SigningSecret};
use slack_installs::slack::{ClientCredentials, Environment};
use slack_installs::layer::SlackLayer;
use slack_installs::{
    Authorizer, ClientId, EncryptedStore, InstallConfig, InstallProvider, Lifecycle,
    LocalKeyProvider, MasterKey, RedirectUri, Scopes,
};
use slack_morphism::prelude::*;

type Client = Arc<SlackHyperClient>;

#[derive(Deserialize)]
struct Command {
    channel_id: String,
}

/// Handles `/hello`. The layer has verified the request and found the token, so this handler does
/// not look for a tenant.
async fn hello(
    State(client): State<Client>,
    auth: Authorized,
    Form(command): Form<Command>,
) -> Result<(), String> {
    let token = auth.bot_token().ok_or("The bot is not installed here.")?;
    // This copy of the token lives as long as this call, and is not wiped from memory.
    let token = SlackApiToken::new(token.expose().into());
    let greeting = SlackApiChatPostMessageRequest::new(
        command.channel_id.into(),
        SlackMessageContent::new().with_text("Hello!".into()),
    );
    let posted = client.open_session(&token).chat_post_message(&greeting).await;
    // slack-morphism's errors can repeat Slack's response, so they are dropped.
    posted.map(drop).map_err(|_| "Slack rejected the message.".to_owned())
}

/// Returns the routes of the app, the same as for one workspace.
fn app(client: Client) -> Router {
    Router::new().route("/slack/commands", post(hello)).with_state(client)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let credentials = ClientCredentials {
        client_id: ClientId::new(env::var("SLACK_CLIENT_ID")?)?,
        client_secret: ClientSecret::new(env::var("SLACK_CLIENT_SECRET")?)?,
    };
    let signing_secret = SigningSecret::new(env::var("SLACK_SIGNING_SECRET")?)?;
    let redirect_uri = RedirectUri::new(&env::var("SLACK_REDIRECT_URL")?)?;

    // Loses all installations when the program ends. Use a database here.
    let backend = MemoryBackend::default();
    let key = LocalKeyProvider::new(MasterKey::from_env("SLACK_INSTALLS_MASTER_KEY")?);
    let store = EncryptedStore::open(backend, key, credentials.client_id.clone()).await?;

    let slack = slack_installs::slack::SlackClient::new(Environment::commercial());
    let lifecycle = Lifecycle::new(store.clone(), slack.clone());
    let authorizer = Authorizer::new(store.clone());
    let layer = SlackLayer::new(Verifier::new(&signing_secret), authorizer, lifecycle);
    let config = InstallConfig::new(credentials, redirect_uri, Scopes::from("commands,chat:write"));
    let provider = InstallProvider::new(config, slack, store.clone(), store)?;

    let client = Arc::new(SlackClient::new(SlackClientHyperConnector::new()?));
    let app = app(client).layer(layer); // One line adds the layer to an existing app.
    let app = app.merge(install_routes(&provider)); // One line adds the install flow.

    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    Ok(axum::serve(listener, app).await?)
}
