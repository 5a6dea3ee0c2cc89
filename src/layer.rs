//! A tower layer. Your service receives only requests from Slack, together with the tokens of the
//! tenant that installed the app, or with the reason why there is none.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;
use url::Url;

use crate::authorize::Authorizer;
use crate::events::Lifecycle;
use crate::gate::{Admitted, Gate, Refusals, Reply};
use crate::replay::ReplayGuard;
use crate::request::{Verifier, is_ssl_check};

mod body;
mod refusal_log;

use body::{Received, receive};
use refusal_log::RefusalLog;

/// Verifies, resolves and authorizes each request before your service receives it.
///
/// * If a request is not from Slack, the response is 401 (or 400, 408, 413, 415), and the store is
///   not read. What the headers show is refused before the body is read. The log has the path and
///   the reason, at most ten lines a minute for each reason.
/// * `url_verification` and `ssl_check` get their response from the layer.
/// * `app_uninstalled` is handled. The response is 200 if all data was deleted, else 503, so that
///   Slack repeats the event. Your app hears of it through its hook.
/// * `tokens_revoked`, `team_access_granted`, `team_access_revoked` and `grid_migration_*` are also
///   handled. Your service then always receives them, and `app_rate_limited` too: with the error
///   instead of a token if there is none.
/// * Every other event reaches your service if the app is installed for its tenant, also if no
///   token fits. The same holds for events and interactions that name no tenant with certainty, and
///   for interactions of a type that this version does not know.
/// * If a request cannot be served, the layer responds, with your app's [`Refusals`] if it has its
///   own. By default, a slash command gets a line of text with the reason, and with the install
///   link if it helps. [`Refusal::reply`](crate::Refusal::reply) lists the responses to all others.
/// * A request that reaches your service has an unchanged body, and its extensions contain an
///   [`Authorization`](crate::Authorization).
///
/// The layer waits at most 3 s for the body, and then at most 2.5 s for the database, for the key
/// provider and for Slack. After that it responds as to any request that cannot be served now. Once
/// your service has responded, the layer waits at most 0.25 s until the request counts as handled.
///
/// Put it around the routes that Slack calls, not around the install flow.
///
/// ```
/// # #[cfg(feature = "axum")]
/// # fn example(app: axum::Router, layer: slack_installs::layer::SlackLayer) -> axum::Router {
/// // An existing app needs one more line:
/// app.layer(layer)
/// # }
/// ```
#[derive(Clone)]
pub struct SlackLayer {
    verifier: Verifier,
    gate: Gate,
    refusal_log: Arc<RefusalLog>,
}

impl SlackLayer {
    /// Creates a layer of these parts.
    #[must_use]
    pub fn new(verifier: Verifier, authorizer: Authorizer, lifecycle: Lifecycle) -> Self {
        Self::with_gate(verifier, Gate::new(authorizer, lifecycle))
    }

    pub(crate) fn with_gate(verifier: Verifier, gate: Gate) -> Self {
        Self {
            verifier,
            gate,
            refusal_log: Arc::default(),
        }
    }

    /// Passes each request to your service only once, by its event id or trigger id.
    ///
    /// If a request was already handled, the response is an empty 200; if it is in progress, 503. A
    /// request counts as handled if your service responds with a status below 400. Otherwise, or if
    /// the service is dropped, Slack's repetition is handled.
    #[must_use]
    pub fn with_replay_guard(mut self, guard: ReplayGuard) -> Self {
        self.gate = self.gate.with_replay_guard(guard);
        self
    }

    /// Sets the app's install link, which the responses show to people who can install the app or
    /// connect their account:
    /// [`InstallProvider::install_url`](crate::InstallProvider::install_url).
    #[must_use]
    pub fn with_install_url(mut self, url: Url) -> Self {
        self.gate = self.gate.with_install_url(url);
        self
    }

    /// Uses your app's responses to requests that cannot be served.
    #[must_use]
    pub fn with_refusals(mut self, refusals: impl Refusals) -> Self {
        self.gate = self.gate.with_refusals(Some(Arc::new(refusals)));
        self
    }

    /// Returns the request with its authorization in the extensions, or the response for Slack.
    async fn admit<B>(&self, request: Request<B>) -> Result<(Request<B>, Admitted), Reply>
    where
        B: Body + From<Bytes> + Send,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (mut head, body) = request.into_parts();
        let body = match receive(&self.verifier, &head.headers, body).await {
            Ok(Received::Body(body)) => body,
            Ok(Received::Probe) => return Err(Reply::empty()),
            Err(reason) => return Err(self.refusal_log.refuse(&head.uri, &reason)),
        };
        let verified = match self.verifier.verify(&head.headers, body.clone()) {
            Ok(verified) => verified,
            // Slack does not document whether it signs these probes, and they contain nothing to
            // protect.
            Err(_) if is_ssl_check(&head.headers, &body) => return Err(Reply::empty()),
            Err(error) => return Err(self.refusal_log.refuse(&head.uri, &error.into())),
        };
        self.refusal_log.verified();
        let admitted = self.gate.admit(verified).await?;
        head.extensions.insert(admitted.authorization.clone());
        let request = Request::from_parts(head, B::from(body));
        #[cfg(feature = "axum")]
        let request = {
            // axum's own limit is 2 MB. A body that was accepted here must not be refused there.
            let mut request = request;
            ::axum::extract::DefaultBodyLimit::max(self.verifier.body_limit()).apply(&mut request);
            request
        };
        Ok((request, admitted))
    }
}

impl fmt::Debug for SlackLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlackLayer")
            .field("verifier", &self.verifier)
            .field("gate", &self.gate)
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

/// The service that [`SlackLayer`] creates.
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
        // This request uses the clone that was polled ready; a new clone replaces it.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let layer = self.layer.clone();
        Box::pin(async move {
            let (request, admitted) = match layer.admit(request).await {
                Ok(admitted) => admitted,
                Err(reply) => return Ok(into_response(reply)),
            };
            let response = inner.call(request).await?;
            let status = response.status();
            if status.is_client_error() || status.is_server_error() {
                admitted.failed().await;
            } else {
                admitted.done().await;
            }
            Ok(response)
        })
    }
}

fn into_response<R: From<Bytes>>(reply: Reply) -> Response<R> {
    let content_type = reply.content_type();
    let mut response = Response::new(R::from(Bytes::from(reply.text)));
    *response.status_mut() = reply.status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
