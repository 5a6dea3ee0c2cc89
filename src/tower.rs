//! A tower layer: the host's service sees only requests that are Slack's, for a tenant that has
//! the app, with that tenant's tokens beside them.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tower_layer::Layer;
use tower_service::Service;

use crate::authorize::{AuthorizeError, AuthorizeResult, Authorizer};
use crate::causes::with_causes;
use crate::events::{Handled, Lifecycle};
use crate::replay::{Entry, Pass, ReplayGuard};
use crate::request::{Kind, VerifiedRequest, Verifier, is_ssl_check};
use crate::rotation;

/// Verifies, resolves and authorizes each request before the host's service sees it.
///
/// * A request that is not Slack's is answered 401 (or 400, 413), and nothing is looked up.
/// * `url_verification` and `ssl_check` are answered.
/// * `app_uninstalled` is handled, and answered 200 when what had to go is gone, else 503, so that
///   Slack repeats it.
/// * `tokens_revoked`, `team_access_granted`, `team_access_revoked` and `grid_migration_*` are
///   handled likewise, and what they changed then goes on to the service like any other event.
/// * A request that cannot be served is answered: a slash command with a line of text, a click
///   or a modal with 403, so that Slack shows its own error to the person, and an event with an
///   empty 200. If that may be different in a moment, or once the app's own configuration is
///   mended, events and clicks are answered 503.
/// * All others reach the host's service, body unchanged, with an [`Authorization`] in their
///   extensions.
///
/// Put it around the routes that Slack calls, not around the install flow.
///
/// ```
/// # #[cfg(feature = "axum")]
/// # fn example(app: axum::Router, layer: slack_installs::tower::SlackLayer) -> axum::Router {
/// // An app that exists, behind one more line:
/// app.layer(layer)
/// # }
/// ```
#[derive(Clone)]
pub struct SlackLayer(Arc<Parts>);

#[derive(Clone)]
struct Parts {
    verifier: Verifier,
    authorizer: Authorizer,
    lifecycle: Lifecycle,
    replay: Option<ReplayGuard>,
}

impl SlackLayer {
    /// A layer of these parts.
    #[must_use]
    pub fn new(verifier: Verifier, authorizer: Authorizer, lifecycle: Lifecycle) -> Self {
        Self(Arc::new(Parts {
            verifier,
            authorizer,
            lifecycle,
            replay: None,
        }))
    }

    /// Hands each request to the host's service once, by its event id or trigger id.
    ///
    /// One that was handled is answered with an empty 200, one that is being handled with 503.
    /// It counts as handled when the service answers with a status below 400; otherwise, or if
    /// the service is dropped, Slack's repetition is handled anew.
    #[must_use]
    pub fn with_replay_guard(mut self, guard: ReplayGuard) -> Self {
        Arc::make_mut(&mut self.0).replay = Some(guard);
        self
    }
}

impl fmt::Debug for SlackLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlackLayer")
            .field("verifier", &self.0.verifier)
            .field("authorizer", &self.0.authorizer)
            .field("lifecycle", &self.0.lifecycle)
            .finish()
    }
}

impl<S> Layer<S> for SlackLayer {
    type Service = SlackService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SlackService {
            layer: self.clone(),
            inner,
        }
    }
}

/// What [`SlackLayer`] puts into a request's extensions.
#[derive(Clone, Debug)]
pub struct Authorization {
    /// The request, as Slack signed it.
    pub request: Arc<VerifiedRequest>,
    /// The tokens that may serve it.
    pub authorized: Arc<AuthorizeResult>,
}

/// The service that [`SlackLayer`] makes.
#[derive(Clone, Debug)]
pub struct SlackService<S> {
    layer: SlackLayer,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for SlackService<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + From<Bytes> + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    R: From<Bytes> + Send + 'static,
{
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;
    type Response = Response<R>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The clone that was polled ready serves this request; a fresh one takes its place.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let parts = Arc::clone(&self.layer.0);
        Box::pin(async move {
            let (request, pass) = match parts.admit(request).await {
                Ok(admitted) => admitted,
                Err(answer) => return Ok(answer.into_response()),
            };
            let response = inner.call(request).await?;
            if let Some(pass) = pass {
                // Slack may hang up before it is written, and this future is dropped then.
                let noted = tokio::spawn(end(pass, response.status()));
                // It has no result, and does not panic: the runtime ends.
                drop(noted.await);
            }
            Ok(response)
        })
    }
}

impl Parts {
    /// The request with its authorization, or what to answer instead.
    async fn admit<B>(
        self: &Arc<Self>,
        request: Request<B>,
    ) -> Result<(Request<B>, Option<Pass>), Answer>
    where
        B: Body + From<Bytes> + Send,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (mut head, body) = request.into_parts();
        let body = Limited::new(body, self.verifier.body_limit());
        let body = match body.collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(Answer::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "the body is too large",
                ));
            }
            Err(_) => {
                return Err(Answer::new(
                    StatusCode::BAD_REQUEST,
                    "the body did not arrive",
                ));
            }
        };
        let verified = match self.verifier.verify(&head.headers, body.clone()) {
            Ok(verified) => verified,
            // Slack does not say whether it signs these; there is nothing in them to protect.
            Err(_) if is_ssl_check(&head.headers, &body) => return Err(Answer::empty()),
            Err(error) => {
                tracing::info!(%error, "a request was refused");
                return Err(Answer::new(error.status(), "refused"));
            }
        };
        match verified.kind() {
            Kind::UrlVerification { challenge } => return Err(Answer::text(challenge)),
            Kind::SslCheck => return Err(Answer::empty()),
            _ => {}
        }
        let request = Arc::new(verified);
        if !matches!(
            self.handle_lifecycle(&request).await?,
            Handled::Noted | Handled::NotLifecycle | Handled::Revoked
        ) {
            return Err(Answer::empty());
        }
        let authorized = match self.authorizer.authorize(&request).await {
            Ok(authorized) => Arc::new(authorized),
            Err(error) => return Err(Answer::unauthorized(&request, &error)),
        };
        let pass = self.enter(&request).await?;
        head.extensions.insert(Authorization {
            request,
            authorized,
        });
        Ok((Request::from_parts(head, B::from(body)), pass))
    }

    async fn enter(&self, request: &VerifiedRequest) -> Result<Option<Pass>, Answer> {
        let Some(guard) = &self.replay else {
            return Ok(None);
        };
        match guard.enter(request).await {
            Ok(Entry::New(pass)) => Ok(Some(pass)),
            Ok(Entry::Repeated) => Err(Answer::empty()),
            Ok(Entry::InProgress) => Err(Answer::later()),
            Err(error) => {
                tracing::error!(
                    error = with_causes(&error),
                    "it is unknown whether a request was handled"
                );
                Err(Answer::later())
            }
        }
    }

    /// Runs on a task of its own: Slack hangs up after 3 s, and a server drops the request then.
    async fn handle_lifecycle(
        self: &Arc<Self>,
        request: &Arc<VerifiedRequest>,
    ) -> Result<Handled, Answer> {
        if !Lifecycle::concerns(request) {
            return Ok(Handled::NotLifecycle);
        }
        let (parts, request) = (Arc::clone(self), Arc::clone(request));
        let task = tokio::spawn(async move { parts.lifecycle.handle(&request).await });
        match task.await {
            Ok(Ok(handled)) => Ok(handled),
            Ok(Err(error)) => {
                tracing::error!(
                    error = with_causes(&error),
                    "a lifecycle event could not be handled; Slack repeats it"
                );
                Err(Answer::later())
            }
            // A hook of the host's panicked, or the process ends.
            Err(_) => Err(Answer::later()),
        }
    }
}

async fn end(pass: Pass, status: StatusCode) {
    let is_handled = status.is_informational() || status.is_success() || status.is_redirection();
    let ended = match is_handled {
        true => pass.done().await,
        false => pass.failed().await,
    };
    if let Err(error) = ended {
        tracing::error!(
            error = with_causes(&error),
            "a request may be handled twice"
        );
    }
}

/// Why a request is not served, as far as it matters to whoever made it.
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

/// What the layer answers itself.
struct Answer {
    status: StatusCode,
    text: String,
}

impl Answer {
    fn new(status: StatusCode, text: &str) -> Self {
        Self {
            status,
            text: text.to_owned(),
        }
    }

    fn empty() -> Self {
        Self::new(StatusCode::OK, "")
    }

    /// Slack repeats an event that is answered so.
    fn later() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not done yet")
    }

    fn text(text: &str) -> Self {
        Self::new(StatusCode::OK, text)
    }

    fn unauthorized(request: &VerifiedRequest, error: &AuthorizeError) -> Self {
        let (tenant, kind) = (request.tenant(), request.kind());
        let refusal = Refusal::of(error);
        let error = with_causes(error);
        match refusal {
            Refusal::Later | Refusal::Misconfigured => {
                tracing::error!(?tenant, ?kind, error, "a request cannot be served");
            }
            _ => tracing::info!(?tenant, ?kind, error, "a request is not authorized"),
        }
        match (kind, refusal) {
            // Slack shows the text of the answer to the person who typed the command.
            (Kind::SlashCommand, refusal) => Self::text(refusal.text()),
            (_, Refusal::Later | Refusal::Misconfigured) => Self::later(),
            (Kind::AppRateLimited | Kind::Event { .. } | Kind::FunctionExecuted, _) => {
                // Nothing will change by repeating it.
                Self::empty()
            }
            // Slack shows the person that it did not work; an empty 200 would close a modal.
            _ => Self::new(StatusCode::FORBIDDEN, "refused"),
        }
    }

    fn into_response<R: From<Bytes>>(self) -> Response<R> {
        let mut response = Response::new(R::from(Bytes::from(self.text)));
        *response.status_mut() = self.status;
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, plain);
        response
    }
}
