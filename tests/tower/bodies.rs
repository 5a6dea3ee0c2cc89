//! Bodies that are too long or do not arrive, and what else of a request reaches the service.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full};
use slack_installs::Authorization;
use slack_installs::layer::SlackLayer;
use tower_layer::Layer as _;
use tower_service::Service;

use super::front::{Front, layer};
use super::support::app::ADA;

const CHUNK: usize = 64 * 1024;

/// A body of this many chunks, which ends with an error if `fails` is set.
struct Chunks {
    left: usize,
    fails: bool,
    read: Arc<AtomicUsize>,
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left == 0 {
            let end = self.fails.then(|| Err("the connection is cut".into()));
            return Poll::Ready(end);
        }
        self.left -= 1;
        self.read.fetch_add(1, Ordering::SeqCst);
        let chunk = Bytes::from_static(&[b' '; CHUNK]);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }
}

impl From<Bytes> for Chunks {
    fn from(_: Bytes) -> Self {
        unreachable!("the service is not called")
    }
}

/// A service that must not be called.
#[derive(Clone)]
struct Never;

impl<B> Service<Request<B>> for Never {
    type Error = Infallible;
    type Future = Ready<Result<Response<Full<Bytes>>, Infallible>>;
    type Response = Response<Full<Bytes>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Pending
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        unreachable!("it is never called")
    }
}

#[tokio::test]
async fn a_body_without_end_is_read_to_the_limit_and_no_further() {
    let front = Front::new(false).await;
    let command = front.life.app.fake.slash_command(ADA, "/x", "");
    let read = Arc::new(AtomicUsize::new(0));
    let endless = front.request(&command).map(|_| Chunks {
        left: 1_000,
        fails: false,
        read: Arc::clone(&read),
    });
    let before = front.reads();
    let response = layer(&front.life).layer(Never).call(endless).await;
    let status = response.expect("infallible").status();
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let read = read.load(Ordering::SeqCst);
    assert_eq!(read, 1024 * 1024 / CHUNK + 1, "chunks were read");
    assert_eq!(front.reads(), before, "no read is made");
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_a_bad_request() {
    let front = Front::new(false).await;
    let command = front.life.app.fake.slash_command(ADA, "/x", "");
    let cut = front.request(&command).map(|_| Chunks {
        left: 2,
        fails: true,
        read: Arc::default(),
    });
    let response = layer(&front.life).layer(Never).call(cut).await;
    let status = response.expect("infallible").status();
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_verifiers_own_limit_counts_to_the_byte() {
    let front = Front::new(false).await;
    front.life.install(ADA).await;
    let command = front.life.app.fake.slash_command(ADA, "/x", "");
    let length = command.body().len();
    for (limit, expected) in [
        (length, StatusCode::OK),
        (length - 1, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let verifier = front.life.verifier.clone().with_body_limit(limit);
        let authorizer = front.life.authorizer.clone();
        let layer = SlackLayer::new(verifier, authorizer, front.life.lifecycle.clone());
        let mut service = layer.layer(front.handler.clone());
        let response = service.call(front.request(&command)).await;
        assert_eq!(response.expect("infallible").status(), expected);
    }
    let large = front
        .life
        .app
        .fake
        .slash_command(ADA, "/x", &"x".repeat(20 * CHUNK));
    let verifier = front.life.verifier.clone();
    let verifier = verifier.with_body_limit(large.body().len());
    let authorizer = front.life.authorizer.clone();
    let layer = SlackLayer::new(verifier, authorizer, front.life.lifecycle.clone());
    let mut service = layer.layer(front.handler.clone());
    let response = service.call(front.request(&large)).await;
    assert_eq!(response.expect("infallible").status(), StatusCode::OK);
    assert_eq!(front.handler.last().1, large.body());
}

/// A service that panics unless the same instance was polled ready before the call.
struct Reserved {
    is_ready: bool,
}

impl Clone for Reserved {
    fn clone(&self) -> Self {
        Self { is_ready: false }
    }
}

/// A request extension that a server in front of the layer has set.
#[derive(Clone)]
struct Peer(&'static str);

impl Service<Request<Full<Bytes>>> for Reserved {
    type Error = Infallible;
    type Future = Ready<Result<Response<Full<Bytes>>, Infallible>>;
    type Response = Response<Full<Bytes>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        assert!(self.is_ready, "the service was not polled ready");
        let peer = request.extensions().get::<Peer>().expect("it is kept").0;
        assert!(request.extensions().get::<Authorization>().is_some());
        let header = request.headers()["x-slack-signature"].as_bytes();
        assert!(header.starts_with(b"v0="), "headers are kept");
        ready(Ok(Response::new(Full::from(peer))))
    }
}

#[tokio::test]
async fn the_service_that_was_ready_is_called_with_all_that_came_before() {
    let front = Front::new(false).await;
    front.life.install(ADA).await;
    let mut context = Context::from_waker(Waker::noop());
    let mut service = layer(&front.life).layer(Reserved { is_ready: false });
    for _ in 0..2 {
        assert!(Service::<Request<Full<Bytes>>>::poll_ready(&mut service, &mut context).is_ready());
        let mut request = front.request(&front.mention());
        request.extensions_mut().insert(Peer("198.51.100.7"));
        let response = service.call(request).await.expect("infallible");
        let body = response.into_body().collect().await.expect("infallible");
        assert_eq!(body.to_bytes(), "198.51.100.7");
    }
    let mut busy = layer(&front.life).layer(Never);
    let polled = Service::<Request<Full<Bytes>>>::poll_ready(&mut busy, &mut context);
    assert!(polled.is_pending(), "the layer waits for a busy service");
}
