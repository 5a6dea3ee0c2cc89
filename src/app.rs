//! [`SlackApp`]: holds the parts of an app, and runs their background work.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::Stream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::authorize::AuthorizeError;
use crate::clock::Clock;
use crate::events::Lifecycle;
use crate::gate::{Admitted, Gate, Reply};
use crate::oauth::InstallProvider;
use crate::operate::Operator;
use crate::request::{VerifiedRequest, Verifier};
use crate::rotation::{Token, TokenRotator, WorkerConfig};
use crate::slack::SlackClient;
use crate::store::{self, Credential, Store, Summary};
use crate::tenant::InstallationKey;

mod builder;
mod env;
mod error;
#[cfg(test)]
mod tests;

pub use builder::SlackAppBuilder;
pub use error::AppError;

/// A multi-workspace Slack app: the install flow, tokens, requests, lifecycle events and background
/// work. Cheap to clone.
///
/// Built by [`from_env`](Self::from_env) or [`builder`](Self::builder). The parts share one store,
/// one Slack client and one clock. You can also use each part alone.
///
/// ```no_run
/// # #[cfg(all(feature = "axum", feature = "sqlite"))]
/// # mod example {
/// use axum::{Router, routing::post};
/// use slack_installs::prelude::*;
///
/// async fn command(auth: Authorized) -> String {
///     format!("Hello from {}", auth.installation_key())
/// }
///
/// async fn serve() -> Result<(), Box<dyn std::error::Error>> {
///     let app = SlackApp::from_env().scopes("commands,chat:write").build().await?;
///     let background = tokio::spawn(app.run());
///     let router = Router::new()
///         .route("/slack/command", post(command))
///         .layer(app.layer())
///         .merge(app.install_routes());
///     let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
///     axum::serve(listener, router).await?;
///     app.shutdown().await;
///     background.await?;
///     Ok(())
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct SlackApp(Arc<Parts>);

pub(crate) struct Parts {
    pub(crate) clock: Clock,
    pub(crate) gate: Gate,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) operator: Operator,
    pub(crate) provider: InstallProvider,
    pub(crate) rotator: TokenRotator,
    pub(crate) slack: SlackClient,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) verifier: Verifier,
    /// `true` once `shutdown` was called.
    pub(crate) stop: watch::Sender<bool>,
}

impl SlackApp {
    /// Returns a builder with values from environment variables.
    ///
    /// | variable | value |
    /// |---|---|
    /// | `SLACK_CLIENT_ID`, `SLACK_CLIENT_SECRET` | from the app's page *Basic Information* |
    /// | `SLACK_OLD_CLIENT_SECRET` | only while you replace it: the previous client secret |
    /// | `SLACK_SIGNING_SECRET` | from the same page |
    /// | `SLACK_REDIRECT_URI` | the redirect URL, from the app's page *OAuth & Permissions* |
    /// | `SLACK_INSTALLS_URL` | the database's URL: see [`connect`](crate::backend::connect) |
    /// | `SLACK_INSTALLS_MASTER_KEY` | 32 random bytes: `openssl rand -base64 32` |
    /// | `SLACK_INSTALLS_MASTER_KEY_FILE` | or the path of a file with the master key |
    /// | `SLACK_INSTALLS_KEYS` | or the URL of a key provider: see [`keys`](crate::keys::connect) |
    ///
    /// Set only one of the last three. A master key may have several lines: the first key is the
    /// primary, and the others are retired.
    ///
    /// A method of the builder replaces the variable for the same value.
    pub fn from_env() -> SlackAppBuilder {
        SlackAppBuilder::of(env::read(|name| std::env::var_os(name)))
    }

    /// Returns an empty builder, which does not read the environment.
    pub fn builder() -> SlackAppBuilder {
        SlackAppBuilder::default()
    }

    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Returns the layer for the routes that Slack calls: commands, interactions and events.
    #[cfg(feature = "tower")]
    #[must_use]
    pub fn layer(&self) -> crate::layer::SlackLayer {
        crate::layer::SlackLayer::with_gate(self.0.verifier.clone(), self.0.gate.clone())
    }

    /// Returns the routes for people who install the app: the install path (`/slack/install` by
    /// default), and the path of each redirect URL.
    #[cfg(feature = "axum")]
    pub fn install_routes<S: Clone + Send + Sync + 'static>(&self) -> axum::Router<S> {
        crate::web::install_routes(&self.0.provider)
    }

    /// Returns the install routes with this prefix removed from their paths.
    ///
    /// Use it for a router that is nested under the prefix, or behind a proxy that removes it
    /// ([`axum::install_routes_under`] has an example).
    ///
    /// # Errors
    ///
    /// Returns [`MountError`](crate::web::MountError) if a path is not under the prefix.
    ///
    /// [`axum::install_routes_under`]: crate::web::install_routes_under
    #[cfg(feature = "axum")]
    pub fn install_routes_under<S: Clone + Send + Sync + 'static>(
        &self,
        prefix: &str,
    ) -> Result<axum::Router<S>, crate::web::MountError> {
        crate::web::install_routes_under(&self.0.provider, prefix)
    }

    /// Admits a request that arrived over Socket Mode, or that your app verified itself.
    ///
    /// Returns the request's tokens, or the response for Slack. The tower layer does the same over
    /// HTTP. Takes at most 2.5 s, because Slack gives a handler 3 s.
    ///
    /// ```
    /// # use slack_installs::SlackApp;
    /// # use slack_installs::request::VerifiedRequest;
    /// # async fn acknowledge(payload: Option<serde_json::Value>) {}
    /// # async fn frame(app: SlackApp, request: VerifiedRequest) {
    /// match app.serve(request).await {
    ///     Ok(admitted) => {
    ///         acknowledge(None).await;
    ///         // An event can arrive without a token, and says why.
    ///         if let Ok(authorized) = &admitted.authorization.authorized {
    ///             let token = authorized.bot_token();
    ///             // … call Slack with it.
    ///         }
    ///         admitted.done().await;
    ///     }
    ///     // If your app sends no acknowledgement, Slack delivers an event again.
    ///     Err(reply) if !reply.status.is_success() => {}
    ///     Err(reply) => acknowledge(reply.payload()).await,
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the response for Slack. Your app must do nothing else for this request.
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any point. The handling of a lifecycle event continues.
    pub async fn serve(&self, request: VerifiedRequest) -> Result<Admitted, Reply> {
        self.0.gate.admit(request).await
    }

    /// Returns a current bot token for this workspace or organisation.
    ///
    /// Use it in jobs that no request started. Takes at most 20 s. The installation is found as for a request: an
    /// org-wide installation serves a workspace of its organisation that has no own one. So if your
    /// app knows the workspace's organisation, pass both ids.
    ///
    /// # Errors
    ///
    /// Returns [`AuthorizeError`] if there is no current token. A job should skip a tenant that is
    /// not installed, has no bot, is on hold, or must be installed again. After a
    /// [transient](AuthorizeError::is_transient) error, the call may succeed later.
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any point. A refresh that has begun continues.
    pub async fn token_for(&self, key: &InstallationKey) -> Result<Token, AuthorizeError> {
        let (authorizer, rotator) = (self.0.gate.authorizer(), &self.0.rotator);
        let deadline = Instant::now() + rotator.patience();
        let serving = authorizer.serving_by(deadline, key).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let token = rotator
            .within(left)
            .token_for(&serving, Credential::Bot)
            .await;
        token.map_err(AuthorizeError::Refresh)
    }

    /// Streams the app's installations, and reads the store page by page.
    ///
    /// Use it in jobs over all tenants. Your app needs a crate that reads streams, such as
    /// `futures-util`.
    ///
    /// ```
    /// # use slack_installs::SlackApp;
    /// # async fn nightly(app: SlackApp) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::pin::pin;
    ///
    /// use futures_util::TryStreamExt as _;
    ///
    /// let mut installations = pin!(app.installations());
    /// while let Some(summary) = installations.try_next().await? {
    ///     match app.token_for(&summary.key()).await {
    ///         Ok(token) => drop(app.slack().auth_test(&token.access_token).await),
    ///         // One tenant's error, such as a hold, does not end the job.
    ///         Err(error) => eprintln!("{}: {error}", summary.key()),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If a page cannot be read, yields [`store::Error`](enum@store::Error) and ends the stream.
    pub fn installations(&self) -> impl Stream<Item = Result<Summary, store::Error>> + Send + '_ {
        store::installations(&*self.0.store)
    }

    /// Runs the app's background work until [`shutdown`](Self::shutdown).
    ///
    /// It refreshes tokens before they expire, and repeats the refreshes of processes that died. It
    /// reports departures and notices to your hooks until they succeed, and deletes expired OAuth
    /// states. Run it in each process: `tokio::spawn(app.run())`.
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any point. A refresh that has begun continues.
    pub fn run(&self) -> impl Future<Output = ()> + Send + 'static {
        let app = self.clone();
        async move {
            let mut stop = app.0.stop.subscribe();
            let refreshes = app.0.rotator.work(WorkerConfig::default());
            let departures = app.0.lifecycle.run();
            tokio::select! {
                // `app` owns the sender, so the channel is open.
                _ = stop.wait_for(|stop| *stop) => {}
                () = async { tokio::join!(refreshes, departures); } => {}
            }
        }
    }

    /// Stops the background work and waits for running refreshes, so that no token is lost.
    ///
    /// Starts no further refresh, and waits up to 30 s. If a refresh still runs then, returns
    /// `false`. Call it after your server has stopped, and before the runtime ends.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the app stays stopped and running refreshes continue.
    pub async fn shutdown(&self) -> bool {
        self.0.stop.send_replace(true);
        self.0.rotator.shutdown(SHUTDOWN).await
    }

    /// Returns the install flow.
    #[must_use]
    pub fn provider(&self) -> &InstallProvider {
        &self.0.provider
    }

    /// Returns the rotator. It hands out user tokens too, refreshes on demand, and retries calls.
    #[must_use]
    pub fn rotator(&self) -> &TokenRotator {
        &self.0.rotator
    }

    /// Returns the handler of lifecycle events, such as `app_uninstalled`.
    #[must_use]
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.0.lifecycle
    }

    /// Returns the operator, which freezes, unfreezes, revokes, purges and reconciles tenants.
    #[must_use]
    pub fn operator(&self) -> &Operator {
        &self.0.operator
    }

    /// Returns the client for Slack's Web API.
    #[must_use]
    pub fn slack(&self) -> &SlackClient {
        &self.0.slack
    }

    /// Returns the store of installations.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// Returns the verifier of HTTP requests from Slack.
    #[must_use]
    pub fn verifier(&self) -> &Verifier {
        &self.0.verifier
    }

    /// Returns the clock that all parts use.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }
}

impl fmt::Debug for SlackApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlackApp")
            .field("store", &self.0.store)
            .field("slack", &self.0.slack)
            .finish_non_exhaustive()
    }
}

/// A refresh takes at most one lease (15 s). The rest allows for a slow database.
const SHUTDOWN: Duration = Duration::from_secs(30);
