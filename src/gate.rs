//! The gate that every verified request passes, over HTTP or Socket Mode. It handles lifecycle
//! events, finds the tenant's tokens, and refuses repetitions, all within Slack's time limit.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::authorize::{AuthorizeResult, Authorizer};
use crate::error_chain::error_chain;
use crate::events::{Handled, Lifecycle};
use crate::replay::{Entry, Pass, ReplayGuard};
use crate::request::{Kind, VerifiedRequest};

mod reply;

use reply::Refusal;
pub use reply::Reply;

/// A request and the tokens that may serve it.
#[derive(Clone, Debug)]
pub struct Authorization {
    /// The verified request.
    pub request: Arc<VerifiedRequest>,
    /// The tokens that may serve it.
    pub authorized: Arc<AuthorizeResult>,
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
            Kind::UrlVerification { challenge } => return Err(Reply::text(challenge)),
            Kind::SslCheck => return Err(Reply::empty()),
            _ => {}
        }
        let request = Arc::new(request);
        match tokio::time::timeout(DEADLINE, self.judge(&request)).await {
            Ok(judged) => judged,
            Err(_) => {
                let (tenant, kind) = (request.tenant(), request.kind());
                tracing::error!(?tenant, ?kind, "a request was not admitted within 2.5 s");
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
                    "a request is refused: the replay guard could not be read"
                );
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
            tracing::error!(
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
