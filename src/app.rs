//! The front door: one value that has an app's parts, and runs what they need in the background.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::Stream;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::events::Lifecycle;
use crate::gate::{Admitted, Gate, Reply};
use crate::oauth::InstallProvider;
use crate::operate::Operator;
use crate::request::{VerifiedRequest, Verifier};
use crate::rotation::{self, Token, TokenRotator, WorkerConfig};
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

/// A Slack app for many workspaces: the install flow, tokens, requests, events of the app's own
/// life, and the work in the background. Cheap to clone.
///
/// Built by [`from_env`](Self::from_env) or [`builder`](Self::builder). Each part can be used
/// alone as well; this only puts them together, over one store, one Slack client and one clock.
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
    /// Whether the app is to stop.
    pub(crate) stop: watch::Sender<bool>,
}

impl SlackApp {
    /// Starts a builder that reads the environment.
    ///
    /// | variable | what |
    /// |---|---|
    /// | `SLACK_CLIENT_ID`, `SLACK_CLIENT_SECRET` | from the app's page *Basic Information* |
    /// | `SLACK_SIGNING_SECRET` | from the same page |
    /// | `SLACK_REDIRECT_URI` | the redirect URL, as configured at *OAuth & Permissions* |
    /// | `SLACK_INSTALLS_URL` | the database, in a form of [`connect`](crate::backend::connect) |
    /// | `SLACK_INSTALLS_MASTER_KEY` | 32 random bytes: `openssl rand -base64 32` |
    /// | `SLACK_INSTALLS_MASTER_KEY_FILE` | instead of it, a file that holds the key |
    ///
    /// A variable is needed only if the builder's method for the same thing is not called.
    pub fn from_env() -> SlackAppBuilder {
        SlackAppBuilder::of(env::read(|name| std::env::var_os(name)))
    }

    /// Starts a builder that has nothing yet.
    pub fn builder() -> SlackAppBuilder {
        SlackAppBuilder::default()
    }

    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Returns the layer for the routes that Slack calls: commands, interactions, events.
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

    /// Returns the same routes without this prefix: for a router that is nested under it, or
    /// behind a proxy that strips it ([`axum::install_routes_under`] has an example).
    ///
    /// # Errors
    ///
    /// [`MountError`](crate::web::MountError) if a path is not under the prefix.
    ///
    /// [`axum::install_routes_under`]: crate::web::install_routes_under
    #[cfg(feature = "axum")]
    pub fn install_routes_under<S: Clone + Send + Sync + 'static>(
        &self,
        prefix: &str,
    ) -> Result<axum::Router<S>, crate::web::MountError> {
        crate::web::install_routes_under(&self.0.provider, prefix)
    }

    /// Admits a request that came over Socket Mode, or that your app verified itself: returns its
    /// tokens, or the response that Slack gets instead. The same as the layer does over HTTP.
    ///
    /// Takes 2.5 s at most, because Slack gives a handler 3 s.
    ///
    /// ```
    /// # use slack_installs::SlackApp;
    /// # use slack_installs::request::VerifiedRequest;
    /// # async fn acknowledge() {}
    /// # async fn frame(app: SlackApp, request: VerifiedRequest) {
    /// match app.serve(request).await {
    ///     Ok(admitted) => {
    ///         acknowledge().await;
    ///         let token = admitted.authorization.authorized.bot_token();
    ///         // … call Slack with it, and then:
    ///         admitted.done().await;
    ///     }
    ///     // Without an acknowledgement Slack delivers the request again.
    ///     Err(reply) if reply.status.is_server_error() => {}
    ///     Err(_) => acknowledge().await,
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The response for Slack. Your app does nothing else for this request.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any point. A lifecycle event that has begun is handled to its end.
    pub async fn serve(&self, request: VerifiedRequest) -> Result<Admitted, Reply> {
        self.0.gate.admit(request).await
    }

    /// Returns a current token of the bot in this workspace or organisation: for jobs that no
    /// request has started.
    ///
    /// # Errors
    ///
    /// [`rotation::Error`]; never an older token instead. A job skips a tenant that is not
    /// installed (or has no bot), is on hold, or must be installed again; an error that
    /// [is transient](rotation::Error::is_transient) may succeed later.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any point: a refresh that has begun goes on.
    pub async fn token_for(&self, key: &InstallationKey) -> Result<Token, rotation::Error> {
        self.0.rotator.token_for(key, Credential::Bot).await
    }

    /// Streams the installations of the app, page by page: for jobs over all tenants. Needs a crate
    /// that reads streams, such as `futures-util`.
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
    ///         // Not installed, on hold, or to be installed again: one tenant ends no job.
    ///         Err(error) => eprintln!("{}: {error}", summary.key()),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`store::Error`](enum@store::Error) if a page cannot be read. The stream then ends.
    pub fn installations(&self) -> impl Stream<Item = Result<Summary, store::Error>> + Send + '_ {
        store::installations(&*self.0.store)
    }

    /// Does the app's work in the background until [`shutdown`](Self::shutdown): refreshes tokens
    /// ahead of time, repeats refreshes whose process died, reports departures to your hooks until
    /// they succeed, and deletes expired OAuth states. Run it in each process:
    /// `tokio::spawn(app.run())`.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any point: a refresh that has begun goes on.
    pub fn run(&self) -> impl Future<Output = ()> + Send + 'static {
        let app = self.clone();
        async move {
            let mut stop = app.0.stop.subscribe();
            let refreshes = app.0.rotator.work(WorkerConfig::default());
            let departures = app.0.lifecycle.run();
            tokio::select! {
                // The sender is one of the app's own parts.
                _ = stop.wait_for(|stop| *stop) => {}
                () = async { tokio::join!(refreshes, departures); } => {}
            }
        }
    }

    /// Stops the work in the background, starts no more refreshes, and waits up to 30 s for those
    /// that run, so that no token is lost. Returns `false` if some still run then. Call it after
    /// your server has stopped, and before the runtime ends.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the app stays stopped, and refreshes that run go on.
    pub async fn shutdown(&self) -> bool {
        self.0.stop.send_replace(true);
        self.0.rotator.shutdown(SHUTDOWN).await
    }

    /// Returns the install flow.
    #[must_use]
    pub fn provider(&self) -> &InstallProvider {
        &self.0.provider
    }

    /// Returns the rotator: tokens of users, refreshes on demand, calls with a retry.
    #[must_use]
    pub fn rotator(&self) -> &TokenRotator {
        &self.0.rotator
    }

    /// Returns the handler of events of the app's own life.
    #[must_use]
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.0.lifecycle
    }

    /// Returns what an operator does to tenants: hold, release, revoke, purge, reconcile.
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

    /// Returns the verifier of requests over HTTP.
    #[must_use]
    pub fn verifier(&self) -> &Verifier {
        &self.0.verifier
    }

    /// Returns the clock of all parts.
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

/// A refresh takes one lease, 15 s, at most; the rest is for a database that is slow.
const SHUTDOWN: Duration = Duration::from_secs(30);
