//! The gate that every verified request passes, over HTTP or Socket Mode. It handles lifecycle
//! events, finds the tenant's tokens, and refuses repetitions, all within Slack's time limit.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument as _;
use tracing::field::display;
use url::Url;

use crate::authorize::{AuthorizeError, AuthorizeResult, Authorizer};
use crate::error_chain::error_chain;
use crate::events::{Handled, Lifecycle, LifecycleError, context_of};
use crate::metrics;
use crate::replay::{Entry, Pass, ReplayGuard};
use crate::request::{Kind, LifecycleEvent, VerifiedRequest};
use crate::rotation;

mod consent;
mod desk;
mod refusal;
mod reply;

pub use consent::{MissingScopes, ScopeDrift};
use desk::Desk;
pub use refusal::{Refusal, RefusalReason, Refusals};
pub use reply::Reply;

/// A request, and the tokens that may serve it or the reason why there is none.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Authorization {
    /// The verified request.
    pub request: Arc<VerifiedRequest>,
    /// The tokens that may serve it.
    ///
    /// An event reaches your app also without a token, for example because your app has only user
    /// scopes and Slack delivered the event for a user who has since revoked their token. Your app
    /// can then use the error, and the ids of the request's tenant.
    pub authorized: Result<Arc<AuthorizeResult>, Arc<AuthorizeError>>,
    /// What this crate did with a lifecycle event. [`Handled::Ignored`] means that the event was
    /// about an earlier installation, or about nothing that is stored: delete no data then.
    pub lifecycle: Handled,
    /// Responds if a handler does not run, and makes links.
    pub(crate) desk: Arc<Desk>,
}

/// A request that your app should handle. Report the result with [`done`](Self::done) or
/// [`failed`](Self::failed). If it is dropped, it counts as failed.
#[derive(Debug)]
#[must_use = "handle the request, then call `done` or `failed`"]
pub struct Admitted {
    /// The request and the tokens that may serve it.
    pub authorization: Authorization,
    pass: Option<Pass>,
}

impl Admitted {
    /// Records that the request was handled. A repetition is then not handled again.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the record is still written.
    pub async fn done(self) {
        end(self.pass, true).await;
    }

    /// Records that the request was not handled. A repetition is then handled.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the record is still written.
    pub async fn failed(self) {
        end(self.pass, false).await;
    }
}

/// Admits requests of tenants that installed the app, and responds to all others. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Parts>);

#[derive(Clone)]
struct Parts {
    authorizer: Authorizer,
    desk: Arc<Desk>,
    lifecycle: Lifecycle,
    replay: Option<ReplayGuard>,
}

impl Gate {
    pub(crate) fn new(authorizer: Authorizer, lifecycle: Lifecycle) -> Self {
        Self(Arc::new(Parts {
            authorizer,
            desk: Arc::default(),
            lifecycle,
            replay: None,
        }))
    }

    pub(crate) fn with_replay_guard(mut self, guard: ReplayGuard) -> Self {
        Arc::make_mut(&mut self.0).replay = Some(guard);
        self
    }

    pub(crate) fn with_install_url(mut self, url: Url) -> Self {
        Arc::make_mut(&mut Arc::make_mut(&mut self.0).desk).install_url = Some(url);
        self
    }

    pub(crate) fn with_refusals(mut self, refusals: Option<Arc<dyn Refusals>>) -> Self {
        Arc::make_mut(&mut Arc::make_mut(&mut self.0).desk).refusals = refusals;
        self
    }

    /// Returns the request with its tokens, or the response for Slack.
    ///
    /// Takes at most [`DEADLINE`], even if the database, the key provider or Slack does not
    /// respond.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any point. A lifecycle event in progress is still handled to its end.
    pub(crate) async fn admit(&self, request: VerifiedRequest) -> Result<Admitted, Reply> {
        match request.kind() {
            Kind::UrlVerification { challenge } => return Err(Reply::text(&**challenge)),
            Kind::SslCheck => return Err(Reply::empty()),
            _ => {}
        }
        let request = Arc::new(request);
        let judged = context_of(&request).scope(self.judge(&request));
        match tokio::time::timeout(DEADLINE, judged).await {
            Ok(judged) => judged,
            Err(_) => {
                tracing::warn!(
                    tenant = request.tenant().map(display),
                    kind = request.kind().name(),
                    event = request.event_type(),
                    "a request was not admitted within 2.5 s"
                );
                let reason = RefusalReason::TemporarilyUnavailable;
                Err(self.0.desk.respond(&request, reason, None))
            }
        }
    }

    async fn judge(&self, request: &Arc<VerifiedRequest>) -> Result<Admitted, Reply> {
        let lifecycle = self.handle_lifecycle(request).await?;
        // The app hears of departures through its hook, which is durable.
        if request.lifecycle_event() == Some(LifecycleEvent::AppUninstalled) {
            return Err(Reply::empty());
        }
        let authorized = match self.0.authorizer.authorize(request).await {
            Ok(authorized) => Ok(Arc::new(authorized)),
            Err(error) if needs_no_token(request, &error) => {
                tracing::info!(
                    tenant = request.tenant().map(display),
                    kind = request.kind().name(),
                    event = request.event_type(),
                    error = error_chain(&error),
                    "a request reaches the app without a token"
                );
                Err(Arc::new(error))
            }
            Err(error) => return Err(self.0.desk.unauthorized(request, &error)),
        };
        let pass = self.enter(request).await?;
        metrics::REQUESTS.add(["admitted", metrics::NONE]);
        Ok(Admitted {
            authorization: Authorization {
                request: Arc::clone(request),
                authorized,
                lifecycle,
                desk: Arc::clone(&self.0.desk),
            },
            pass,
        })
    }

    pub(crate) fn authorizer(&self) -> &Authorizer {
        &self.0.authorizer
    }

    async fn enter(&self, request: &VerifiedRequest) -> Result<Option<Pass>, Reply> {
        let Some(guard) = &self.0.replay else {
            return Ok(None);
        };
        match guard.enter(request).await {
            Ok(Entry::New(pass)) => Ok(Some(pass)),
            Ok(Entry::Repeated) => {
                metrics::REQUESTS.add(["refused", "repeated"]);
                Err(Reply::empty())
            }
            Ok(Entry::InProgress) => {
                metrics::REQUESTS.add(["refused", "in_progress"]);
                Err(Reply::later())
            }
            Err(error) => {
                tracing::warn!(
                    tenant = request.tenant().map(display),
                    error = error_chain(&error),
                    "a request is refused: the replay guard could not be read"
                );
                metrics::REQUESTS.add(["refused", "temporarily_unavailable"]);
                Err(Reply::later())
            }
        }
    }

    /// Handles a lifecycle event in its own task, because Slack closes the connection after 3 s and
    /// a server then drops the request.
    async fn handle_lifecycle(&self, request: &Arc<VerifiedRequest>) -> Result<Handled, Reply> {
        if !Lifecycle::concerns(request) {
            return Ok(Handled::NotLifecycle);
        }
        let (gate, event) = (self.clone(), Arc::clone(request));
        let handled = async move { gate.0.lifecycle.handle(&event).await };
        let handled = context_of(request).scope(handled);
        match tokio::spawn(handled.in_current_span()).await {
            Ok(Ok(handled)) => Ok(handled),
            Ok(Err(error)) => {
                log_unhandled(request, &error);
                Err(Reply::later())
            }
            // Your app's hook panicked, or the process is ending.
            Err(_) => Err(Reply::later()),
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("authorizer", &self.0.authorizer)
            .field("lifecycle", &self.0.lifecycle)
            .finish_non_exhaustive()
    }
}

fn log_unhandled(request: &VerifiedRequest, error: &LifecycleError) {
    let (tenant, event) = (request.tenant().map(display), request.event_type());
    let is_transient = error.is_transient();
    let error = error_chain(error);
    if is_transient {
        tracing::warn!(
            tenant,
            event,
            error,
            "a lifecycle event is not handled yet; Slack repeats it"
        );
    } else {
        tracing::error!(tenant, event, error, "a lifecycle event cannot be handled");
    }
}

/// Returns whether a request reaches the app although it cannot be authorized.
///
/// * Lifecycle events and `app_rate_limited` are about the installation and not in it.
/// * Nobody waits for the response to an event. So the app decides what an event without a token is
///   worth. Events of tenants that are not served at all stay away: not installed, on hold, or
///   without the organisation's grant.
/// * If a token may exist later, Slack must repeat the event.
/// * A command, a click or a modal has a person who waits for a response, so the crate gives it.
fn needs_no_token(request: &VerifiedRequest, error: &AuthorizeError) -> bool {
    if matches!(error, AuthorizeError::OtherApp) || request.kind().is_shown_to_a_person() {
        return false;
    }
    if request.lifecycle_event().is_some() || matches!(request.kind(), Kind::AppRateLimited) {
        return true;
    }
    matches!(
        error,
        AuthorizeError::Expired
            | AuthorizeError::NoTenant
            | AuthorizeError::NoToken
            | AuthorizeError::Refresh(rotation::Error::ReinstallNeeded { .. })
    )
}

/// Ends a claim in its own task, and waits for it briefly. The server may drop this future when
/// Slack closes the connection, and a slow database must not delay the response.
async fn end(pass: Option<Pass>, is_handled: bool) {
    let Some(pass) = pass else {
        return;
    };
    let noted = tokio::spawn(async move {
        let ended = if is_handled {
            pass.done().await
        } else {
            pass.failed().await
        };
        if let Err(error) = ended {
            tracing::warn!(
                error = error_chain(&error),
                "the result of a request was not stored, so it may be handled twice"
            );
        }
    });
    // The task has no result, and continues in any case.
    drop(tokio::time::timeout(NOTE_PATIENCE, noted).await);
}

/// Slack waits 3 s for a response, and the network and the handler need a part of that
/// (<https://docs.slack.dev/apis/events-api>).
pub(crate) const DEADLINE: Duration = Duration::from_millis(2500);

/// How long the response waits until the request's result is stored. That usually takes
/// milliseconds.
const NOTE_PATIENCE: Duration = Duration::from_millis(250);
