//! Your app's service behind the layer, over a database in memory.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use slack_installs::Authorization;
use slack_installs::layer::{SlackLayer, SlackService};
use slack_installs::replay::ReplayGuard;
use slack_installs::testing::Delivery;
use tower_layer::Layer as _;
use tower_service::Service;
use url::Url;

use super::support::app::ALPHA;
use super::support::hooked::Hooked;
use super::support::life::Life;
use super::support::serving::{Between, interrupted};

/// Your app's service. It counts its calls, returns the configured status, and yields once during a
/// call.
#[derive(Clone, Default)]
pub(crate) struct Handler(Arc<Handled>);

#[derive(Default)]
struct Handled {
    calls: AtomicUsize,
    panics: AtomicBool,
    status: AtomicU16,
    seen: Mutex<Vec<(String, Bytes)>>,
}

impl Handler {
    pub(crate) fn calls(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn answer(&self, status: StatusCode) {
        self.0.status.store(status.as_u16(), Ordering::SeqCst);
    }

    pub(crate) fn set_panicking(&self, panics: bool) {
        self.0.panics.store(panics, Ordering::SeqCst);
    }

    /// Returns the tenant and the body of the last request.
    pub(crate) fn last(&self) -> (String, Bytes) {
        let last = self.0.seen.lock().expect("no panic").pop();
        last.expect("it was called")
    }
}

impl Service<Request<Full<Bytes>>> for Handler {
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send>>;
    type Response = Response<Full<Bytes>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let handler = self.clone();
        Box::pin(async move {
            let found: Authorization = request.extensions().get().cloned().expect("authorized");
            let body = request
                .into_body()
                .collect()
                .await
                .expect("infallible")
                .to_bytes();
            let tenant = match &found.authorized {
                Ok(authorized) => authorized.installation.key().id().to_owned(),
                Err(error) => format!("no token: {error}"),
            };
            handler
                .0
                .seen
                .lock()
                .expect("no panic")
                .push((tenant, body));
            handler.0.calls.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            if handler.0.panics.load(Ordering::SeqCst) {
                // Panics on purpose, without printing a message.
                std::panic::resume_unwind(Box::new("the handler panics"));
            }
            let mut response = Response::new(Full::default());
            if let Ok(status) = StatusCode::from_u16(handler.0.status.load(Ordering::SeqCst)) {
                *response.status_mut() = status;
            }
            Ok(response)
        })
    }
}

pub(crate) struct Front {
    pub(crate) life: Life,
    pub(crate) backend: Hooked<Between>,
    pub(crate) handler: Handler,
    pub(crate) service: SlackService<Handler>,
}

impl Front {
    pub(crate) async fn new(with_guard: bool) -> Self {
        let (life, backend) = interrupted().await;
        Self::of(life, backend, with_guard)
    }

    pub(crate) fn of(life: Life, backend: Hooked<Between>, with_guard: bool) -> Self {
        let mut layer = layer(&life);
        if with_guard {
            layer = layer.with_replay_guard(guard(&life));
        }
        let handler = Handler::default();
        Self {
            service: layer.layer(handler.clone()),
            life,
            backend,
            handler,
        }
    }

    /// Returns the delivery as a request that arrives now.
    pub(crate) fn request(&self, delivery: &Delivery) -> Request<Full<Bytes>> {
        let now = self.life.app.fake.clock().now();
        let url = Url::parse("https://bot.example.com/slack/events").expect("a URL");
        delivery.clone().sent_at(now).request(&url).map(Full::new)
    }

    pub(crate) async fn respond(&self, request: Request<Full<Bytes>>) -> Response<Full<Bytes>> {
        let response = self.service.clone().call(request).await;
        response.expect("infallible")
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> (StatusCode, String) {
        let response = self.respond(request).await;
        let status = response.status();
        (status, text(response).await)
    }

    pub(crate) async fn deliver(&self, delivery: &Delivery) -> StatusCode {
        self.send(self.request(delivery)).await.0
    }

    pub(crate) fn mention(&self) -> Delivery {
        self.life.mention(ALPHA)
    }

    pub(crate) fn reads(&self) -> u64 {
        let counts = self.backend.counts();
        counts.reads + counts.commits
    }
}

pub(crate) async fn text(response: Response<Full<Bytes>>) -> String {
    let body = response.into_body().collect().await.expect("infallible");
    String::from_utf8(body.to_bytes().to_vec()).expect("text")
}

pub(crate) fn layer(life: &Life) -> SlackLayer {
    let (verifier, authorizer) = (life.verifier.clone(), life.authorizer.clone());
    SlackLayer::new(verifier, authorizer, life.lifecycle.clone())
}

pub(crate) fn guard(life: &Life) -> ReplayGuard {
    ReplayGuard::new(life.app.store.clone()).with_clock(life.app.fake.clock())
}
