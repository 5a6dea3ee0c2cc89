//! A Slack whose responses a test writes, and during whose calls a test acts.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use serde_json::{Value, json};
use slack_installs::slack::{SlackClient, Transport, TransportError};
use slack_installs::testing::{FakeSlack, FakeTransport};

type Line = Pin<Box<dyn Future<Output = Option<Response<Bytes>>> + Send>>;

/// Asks the play for each response, and passes the call to the fake Slack if the play has none.
struct Script<F> {
    fake: FakeTransport,
    play: F,
}

impl<F> fmt::Debug for Script<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

#[async_trait]
impl<F> Transport for Script<F>
where
    F: Fn(String, String) -> Line + Send + Sync + 'static,
{
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        let method = request.uri().path().trim_start_matches("/api/").to_owned();
        let token = request.headers().get(header::AUTHORIZATION);
        let token = token.and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer "));
        let token = token.unwrap_or_default().to_owned();
        match (self.play)(method, token).await {
            Some(response) => Ok(response),
            None => self.fake.send(request).await,
        }
    }
}

/// Returns a client that shows the method and the token of each call to the play first.
pub fn scripted<F, L>(fake: &FakeSlack, play: F) -> SlackClient
where
    F: Fn(String, String) -> L + Send + Sync + 'static,
    L: Future<Output = Option<Response<Bytes>>> + Send + 'static,
{
    let play = Arc::new(play);
    let script = Script {
        fake: fake.transport(),
        play: move |method, token| Box::pin(play(method, token)) as Line,
    };
    SlackClient::with_transport(fake.environment(), script).with_clock(fake.clock())
}

/// Returns `{"ok":false,"error":…}`.
pub fn error(code: &str) -> Response<Bytes> {
    json_body(&json!({"ok": false, "error": code}))
}

/// Returns `{"ok":true,…}`.
pub fn ok(mut fields: Value) -> Response<Bytes> {
    fields["ok"] = true.into();
    json_body(&fields)
}

/// Returns HTTP 429. For `None`, the response has no `Retry-After`.
pub fn rate_limited(retry_after: Option<u64>) -> Response<Bytes> {
    let mut response = error("ratelimited");
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    if let Some(seconds) = retry_after {
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn json_body(body: &Value) -> Response<Bytes> {
    let body = Response::builder()
        .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
        .body(Bytes::from(body.to_string()));
    body.expect("a response")
}
