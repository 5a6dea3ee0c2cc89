//! What the headers of a request show is refused before its body is read, and a refused request is
//! one line in the log at most.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use slack_installs::layer::SlackLayer;
use slack_installs::request::Verifier;
use slack_installs::secret::SigningSecret;
use tower_layer::Layer as _;

use super::front::layer;
use super::*;
use crate::support::log::Log;

/// A body that counts how often it is polled. `is_sized` says whether its length is known. A body
/// that `hangs` never ends.
struct Watched {
    data: Option<Bytes>,
    is_sized: bool,
    hangs: bool,
    polls: Arc<AtomicUsize>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.polls.fetch_add(1, Ordering::SeqCst);
        match self.data.take() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None if self.hangs => Poll::Pending,
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.data {
            Some(data) if self.is_sized => SizeHint::with_exact(data.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

impl From<Bytes> for Watched {
    fn from(data: Bytes) -> Self {
        Self {
            data: Some(data),
            is_sized: true,
            hangs: false,
            polls: Arc::default(),
        }
    }
}

/// Your app's service, which reads the body.
#[derive(Clone)]
struct Reader;

impl tower_service::Service<Request<Watched>> for Reader {
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;
    type Response = http::Response<Full<Bytes>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Watched>) -> Self::Future {
        Box::pin(async move {
            let body = request.into_body().collect().await.expect("infallible");
            Ok(http::Response::new(Full::new(body.to_bytes())))
        })
    }
}

struct Door {
    front: Front,
    layer: SlackLayer,
}

impl Door {
    async fn new() -> Self {
        let front = Front::new(false).await;
        front.life.install(ADA).await;
        let layer = layer(&front.life);
        Self { front, layer }
    }

    /// Returns a slash command that arrives now.
    fn command(&self) -> Request<Full<Bytes>> {
        self.front
            .request(&self.front.life.app.fake.slash_command(ADA, "/x", ""))
    }

    /// Sends a request, and returns the status, and how often the body was polled.
    async fn send(&self, request: Request<Full<Bytes>>, is_sized: bool) -> (StatusCode, usize) {
        let (head, body) = request.into_parts();
        let polls = Arc::new(AtomicUsize::new(0));
        let body = Watched {
            data: Some(body.collect().await.expect("infallible").to_bytes()),
            is_sized,
            hangs: false,
            polls: Arc::clone(&polls),
        };
        let mut service = self.layer.layer(Reader);
        let response = service.call(Request::from_parts(head, body)).await;
        let status = response.expect("infallible").status();
        (status, polls.load(Ordering::SeqCst))
    }
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("a header's value")
}

/// A signature of Slack's form that belongs to no request.
const FORGED: &str = "v0=0000000000000000000000000000000000000000000000000000000000000000";

#[tokio::test]
async fn what_the_headers_show_is_refused_before_the_body_is_read() {
    let door = Door::new().await;
    let before = door.front.reads();
    let (signature, time) = ("x-slack-signature", "x-slack-request-timestamp");
    let good = door.command().headers()[time].clone();
    let good = good.to_str().expect("digits").to_owned();
    let now: u64 = good.parse().expect("seconds");
    let (old, ahead) = ((now - 301).to_string(), (now + 301).to_string());
    let limit = 1024 * 1024;
    let (over, huge) = ((limit + 1).to_string(), "9".repeat(40));
    let bad = StatusCode::BAD_REQUEST;
    let unauthorized = StatusCode::UNAUTHORIZED;
    let large = StatusCode::PAYLOAD_TOO_LARGE;
    for (name, text, expected) in [
        (signature, None, unauthorized),
        (time, None, unauthorized),
        (signature, Some("v0=zz"), bad),
        (signature, Some("v1=00"), bad),
        (signature, Some(""), bad),
        (time, Some("now"), bad),
        (time, Some(""), bad),
        (time, Some("-1"), bad),
        (time, Some(&*old), unauthorized),
        (time, Some(&*ahead), unauthorized),
        (time, Some("0"), unauthorized),
        ("content-length", Some(&*over), large),
        ("content-length", Some(&*huge), large),
        (
            "content-type",
            Some("text/plain"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ),
    ] {
        // The length is not known, known by its header, or known to the server.
        for length in [None, Some(limit.to_string())] {
            for json in [true, false] {
                let mut request = door.command();
                let headers = request.headers_mut();
                if json {
                    headers.insert(CONTENT_TYPE, value("application/json"));
                }
                if let Some(length) = &length {
                    headers.insert(CONTENT_LENGTH, value(length));
                }
                match text {
                    Some(text) => drop(headers.insert(name, value(text))),
                    None => drop(headers.remove(name)),
                }
                let sent = door.send(request, false).await;
                assert_eq!(sent, (expected, 0), "{name}: {text:?}, {length:?}");
            }
        }
    }
    for name in [signature, time] {
        let mut twice = door.command();
        let again = twice.headers()[name].clone();
        twice.headers_mut().append(name, again);
        assert_eq!(door.send(twice, false).await, (bad, 0), "{name}");
    }
    let mut sized = door.command();
    *sized.body_mut() = Full::new(vec![b' '; limit + 1].into());
    assert_eq!(door.send(sized, true).await, (large, 0));
    assert_eq!(door.front.reads(), before, "nothing is read from the store");
    for is_sized in [true, false] {
        let (status, polls) = door.send(door.command(), is_sized).await;
        assert_eq!((status, polls > 0), (StatusCode::OK, true));
    }
}

#[tokio::test]
async fn an_unsigned_probe_is_known_if_it_is_known_to_be_small() {
    let door = Door::new().await;
    let unsigned = |length: Option<&str>| {
        let mut probe = door.front.request(&door.front.life.app.fake.ssl_check());
        probe.headers_mut().remove("x-slack-signature");
        if let Some(length) = length {
            probe.headers_mut().insert(CONTENT_LENGTH, value(length));
        }
        probe
    };
    for (length, is_sized, expected) in [
        (None, true, StatusCode::OK),
        (Some("40"), false, StatusCode::OK),
        (Some("1024"), false, StatusCode::OK),
        (None, false, StatusCode::UNAUTHORIZED),
        (Some("1025"), false, StatusCode::UNAUTHORIZED),
        (Some("a"), false, StatusCode::OK),
    ] {
        let (status, polls) = door.send(unsigned(length), is_sized).await;
        assert_eq!(status, expected, "{length:?}");
        assert_eq!(polls > 0, status == StatusCode::OK, "{length:?}");
    }
    // Of a form that is larger than announced, no more is read than of a probe.
    let mut command = unsigned(Some("10"));
    *command.body_mut() = Full::new(vec![b'a'; 4096].into());
    assert_eq!(
        door.send(command, false).await,
        (StatusCode::UNAUTHORIZED, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_arrives_is_waited_for_as_long_as_slack_waits() {
    let door = Door::new().await;
    let mut service = door.layer.layer(Reader);
    let request = door.command().map(|_| Watched {
        data: None,
        is_sized: false,
        hangs: true,
        polls: Arc::default(),
    });
    let begun = tokio::time::Instant::now();
    let response = service.call(request).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
    assert_eq!(begun.elapsed(), Duration::from_secs(3));
}

#[tokio::test]
async fn a_refused_request_is_one_line_with_the_path_and_the_reason() {
    let door = Door::new().await;
    let stranger = SigningSecret::new("b".repeat(32)).expect("a secret");
    let unready = SlackLayer::new(
        Verifier::new(&stranger).with_clock(door.front.life.app.fake.clock()),
        door.front.life.authorizer.clone(),
        door.front.life.lifecycle.clone(),
    );
    let unready = Door {
        layer: unready,
        front: Door::new().await.front,
    };
    assert_eq!(door.send(door.command(), true).await.0, StatusCode::OK);
    let changed = |name: &'static str, text: &str| {
        let mut request = door.command();
        request.headers_mut().insert(name, value(text));
        request
    };
    let mut body = door.command();
    *body.body_mut() = Full::new("changed".into());
    for (door, request, reason, words) in [
        (
            &door,
            changed("x-slack-signature", "v0=zz"),
            "malformed_header",
            "is malformed",
        ),
        (
            &door,
            changed("x-slack-request-timestamp", "1"),
            "stale",
            "not current",
        ),
        (
            &door,
            changed("content-length", "9999999"),
            "too_large",
            "larger than the limit",
        ),
        (
            &door,
            changed("content-type", "text/css"),
            "media_type",
            "neither JSON nor a form",
        ),
        (
            &door,
            body,
            "signature_mismatch",
            "its body was changed on the way",
        ),
        (
            &unready,
            door.command(),
            "signature_mismatch",
            "check the signing secret",
        ),
    ] {
        let mut request = request;
        *request.uri_mut() = "/slack/events?token=CANARY".parse().expect("a URL");
        let (log, logging) = Log::of_this_thread();
        let (status, _) = door.send(request, false).await;
        drop(logging);
        assert!(status.is_client_error(), "{reason}: {status}");
        let log = log.text();
        assert_eq!(log.lines().count(), 1, "{reason}: {log}");
        let reason = format!("reason=\"{reason}\"");
        for words in [
            "WARN",
            "a request was refused",
            "path=\"/slack/events\"",
            &reason,
            words,
        ] {
            assert!(log.contains(words), "{words}: {log}");
        }
        assert!(!log.contains("CANARY"), "{log}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_refused_requests_is_ten_lines_a_minute_for_each_reason_with_a_count() {
    let door = Door::new().await;
    let flood = async |count: usize| {
        let (log, logging) = Log::of_this_thread();
        for _ in 0..count {
            let mut unsigned = door.command();
            unsigned.headers_mut().remove("x-slack-signature");
            *unsigned.uri_mut() = format!("/{}", "a".repeat(5000)).parse().expect("a path");
            door.send(unsigned, false).await;
        }
        drop(logging);
        log.text()
    };
    let log = flood(1000).await;
    assert_eq!(log.lines().count(), 10);
    assert!(
        log.lines().all(|line| line.len() < 500),
        "a path is not shown at any length"
    );
    let mut forged = door.command();
    forged
        .headers_mut()
        .insert("x-slack-signature", value(FORGED));
    let (other, logging) = Log::of_this_thread();
    door.send(forged, true).await;
    drop(logging);
    assert_eq!(
        other.text().lines().count(),
        1,
        "another reason is not hidden"
    );
    tokio::time::advance(Duration::from_secs(60)).await;
    let log = flood(20).await;
    assert_eq!(log.lines().count(), 10, "{log}");
    assert!(log.contains("left_out=990"), "{log}");
    assert_eq!(log.matches("left_out=0").count(), 9, "{log}");
}
