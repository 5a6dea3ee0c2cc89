//! What every verified request passes, over HTTP or Socket Mode: the app's own life, the tenant's
//! tokens, and each request once. All of it within the time that Slack gives.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::authorize::{AuthorizeError, AuthorizeResult, Authorizer};
use crate::error_chain::error_chain;
use crate::events::{Handled, Lifecycle};
use crate::replay::{Entry, Pass, ReplayGuard};
use crate::request::{Kind, VerifiedRequest};
use crate::rotation;

/// A request and the tokens that may serve it.
#[derive(Clone, Debug)]
pub struct Authorization {
    /// The request, as Slack signed it.
    pub request: Arc<VerifiedRequest>,
    /// The tokens that may serve it.
    pub authorized: Arc<AuthorizeResult>,
}

/// A request that your app should handle. Report the end with [`done`](Self::done) or
/// [`failed`](Self::failed); if it is dropped, it counts as failed.
#[derive(Debug)]
#[must_use = "the request is to be handled"]
pub struct Admitted {
    /// The request and the tokens that may serve it.
    pub authorization: Authorization,
    pass: Option<Pass>,
}

impl Admitted {
    /// Records that the request was handled, so that a repetition is not handled again.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the record is still written.
    pub async fn done(self) {
        end(self.pass, true).await;
    }

    /// Records that the request was not handled, so that a repetition is handled.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the record is still written.
    pub async fn failed(self) {
        end(self.pass, false).await;
    }
}

/// The response to a request that your app does not see.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Reply {
    /// The HTTP status. Over Socket Mode: acknowledge the envelope unless it is 500 or higher;
    /// then Slack delivers the request again.
    pub status: StatusCode,
    /// The body, as plain text; often empty. Slack shows it to the person who typed a command.
    pub text: String,
}

/// Admits requests of tenants that have the app, and responds to all others. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Parts>);

#[derive(Clone)]
struct Parts {
    authorizer: Authorizer,
    lifecycle: Lifecycle,
    replay: Option<ReplayGuard>,
}

impl Gate {
    pub(crate) fn new(authorizer: Authorizer, lifecycle: Lifecycle) -> Self {
        Self(Arc::new(Parts {
            authorizer,
            lifecycle,
            replay: None,
        }))
    }

    pub(crate) fn with_replay_guard(mut self, guard: ReplayGuard) -> Self {
        Arc::make_mut(&mut self.0).replay = Some(guard);
        self
    }

    /// Returns the request with its tokens, or the response that Slack gets instead.
    ///
    /// Takes [`DEADLINE`] at most, whatever hangs: the database, the key provider or Slack.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any point. A lifecycle event that has begun is handled to its end.
    pub(crate) async fn admit(&self, request: VerifiedRequest) -> Result<Admitted, Reply> {
        match request.kind() {
            Kind::UrlVerification { challenge } => return Err(Reply::text(challenge)),
            Kind::SslCheck => return Err(Reply::empty()),
            _ => {}
        }
        let request = Arc::new(request);
        match tokio::time::timeout(DEADLINE, self.judge(&request)).await {
            Ok(judged) => judged,
            Err(_) => {
                let (tenant, kind) = (request.tenant(), request.kind());
                tracing::error!(?tenant, ?kind, "a request was not served within its time");
                Err(Reply::refusing(&request, Refusal::Later))
            }
        }
    }

    async fn judge(&self, request: &Arc<VerifiedRequest>) -> Result<Admitted, Reply> {
        if !matches!(
            self.handle_lifecycle(request).await?,
            Handled::Noted | Handled::NotLifecycle | Handled::Revoked
        ) {
            return Err(Reply::empty());
        }
        let authorized = match self.0.authorizer.authorize(request).await {
            Ok(authorized) => Arc::new(authorized),
            Err(error) => return Err(Reply::unauthorized(request, &error)),
        };
        let pass = self.enter(request).await?;
        let request = Arc::clone(request);
        Ok(Admitted {
            authorization: Authorization {
                request,
                authorized,
            },
            pass,
        })
    }

    async fn enter(&self, request: &VerifiedRequest) -> Result<Option<Pass>, Reply> {
        let Some(guard) = &self.0.replay else {
            return Ok(None);
        };
        match guard.enter(request).await {
            Ok(Entry::New(pass)) => Ok(Some(pass)),
            Ok(Entry::Repeated) => Err(Reply::empty()),
            Ok(Entry::InProgress) => Err(Reply::later()),
            Err(error) => {
                tracing::error!(
                    error = error_chain(&error),
                    "it is unknown whether a request was handled"
                );
                Err(Reply::later())
            }
        }
    }

    /// Runs on a task of its own: Slack closes the connection after 3 s, and a server drops the
    /// request then.
    async fn handle_lifecycle(&self, request: &Arc<VerifiedRequest>) -> Result<Handled, Reply> {
        if !Lifecycle::concerns(request) {
            return Ok(Handled::NotLifecycle);
        }
        let (gate, request) = (self.clone(), Arc::clone(request));
        let task = tokio::spawn(async move { gate.0.lifecycle.handle(&request).await });
        match task.await {
            Ok(Ok(handled)) => Ok(handled),
            Ok(Err(error)) => {
                tracing::error!(
                    error = error_chain(&error),
                    "a lifecycle event could not be handled; Slack repeats it"
                );
                Err(Reply::later())
            }
            // A hook of the app's panicked, or the process ends.
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

/// Ends a claim on a task of its own, and waits for it a moment: the server may drop this future
/// when Slack closes the connection, and a database that hangs must not delay the response.
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
            tracing::error!(
                error = error_chain(&error),
                "a request may be handled twice"
            );
        }
    });
    // The task has no result, and goes on in any case.
    drop(tokio::time::timeout(NOTE_PATIENCE, noted).await);
}

/// Why a request is not served, as far as it matters to the person who made it.
#[derive(Clone, Copy)]
enum Refusal {
    Ended,
    Later,
    Misconfigured,
    NotGranted,
    NotInstalled,
    OnHold,
}

impl Refusal {
    fn of(error: &AuthorizeError) -> Self {
        match error {
            AuthorizeError::Store(_) | AuthorizeError::Refresh(rotation::Error::Store(_)) => {
                Self::Later
            }
            AuthorizeError::Refresh(error) if error.is_transient() => Self::Later,
            AuthorizeError::Refresh(rotation::Error::Configuration { .. }) => Self::Misconfigured,
            AuthorizeError::OnHold | AuthorizeError::Refresh(rotation::Error::OnHold) => {
                Self::OnHold
            }
            AuthorizeError::Expired
            | AuthorizeError::Refresh(rotation::Error::ReinstallNeeded { .. }) => Self::Ended,
            AuthorizeError::NotGranted => Self::NotGranted,
            _ => Self::NotInstalled,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Ended => "This app's access has ended. Please install it again.",
            Self::Later => "This app is busy. Please try again in a moment.",
            Self::Misconfigured => {
                "This app does not work at the moment. Please ask whoever provides it."
            }
            Self::NotGranted => {
                "Your organisation has not added this app to this workspace. Please ask an admin."
            }
            Self::NotInstalled => "This app is not installed here. Please install it first.",
            Self::OnHold => "This app is on hold here. Please ask whoever provides it.",
        }
    }
}

impl Reply {
    pub(crate) fn new(status: StatusCode, text: &str) -> Self {
        Self {
            status,
            text: text.to_owned(),
        }
    }

    pub(crate) fn empty() -> Self {
        Self::new(StatusCode::OK, "")
    }

    /// Slack repeats an event after this response.
    fn later() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not done yet")
    }

    fn text(text: &str) -> Self {
        Self::new(StatusCode::OK, text)
    }

    /// The handler needs a token that is not there.
    #[cfg(feature = "axum")]
    pub(crate) fn without_token(request: &VerifiedRequest) -> Self {
        Self::refusing(request, Refusal::NotInstalled)
    }

    fn unauthorized(request: &VerifiedRequest, error: &AuthorizeError) -> Self {
        let (tenant, kind) = (request.tenant(), request.kind());
        let refusal = Refusal::of(error);
        let error = error_chain(error);
        match refusal {
            Refusal::Later | Refusal::Misconfigured => {
                tracing::error!(?tenant, ?kind, error, "a request cannot be served");
            }
            _ => tracing::info!(?tenant, ?kind, error, "a request is not authorized"),
        }
        Self::refusing(request, refusal)
    }

    fn refusing(request: &VerifiedRequest, refusal: Refusal) -> Self {
        match (request.kind(), refusal) {
            // Slack shows the text of the response to the person who typed the command.
            (Kind::SlashCommand, refusal) => Self::text(refusal.text()),
            (_, Refusal::Later | Refusal::Misconfigured) => Self::later(),
            (Kind::AppRateLimited | Kind::Event { .. } | Kind::FunctionExecuted, _) => {
                // Repeating it changes nothing.
                Self::empty()
            }
            // Slack shows the person that it did not work; an empty 200 would close a modal.
            _ => Self::new(StatusCode::FORBIDDEN, "refused"),
        }
    }
}

/// Slack waits 3 s for a response; the network and the handler need a part of it
/// (<https://docs.slack.dev/apis/events-api>).
pub(crate) const DEADLINE: Duration = Duration::from_millis(2500);

/// A commit takes milliseconds.
const NOTE_PATIENCE: Duration = Duration::from_millis(250);
