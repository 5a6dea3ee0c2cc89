//! Receives the app's posts to `response_url`s and incoming webhooks.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::Value;

use super::consent::{field, pairs};
use super::core::Core;
use super::response::{refuse, status};

impl Core {
    /// Handles a post to a `response_url`.
    pub(super) fn reply(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let Some(body) = message(request) else {
            return status(StatusCode::BAD_REQUEST);
        };
        let (path, now) = (request.uri().path(), self.clock.now());
        match self.state().posts.reply(path, body, now) {
            Ok(()) => text(StatusCode::OK, "ok"),
            Err(error) => {
                let mut response = refuse(error);
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        }
    }

    /// Handles a message to an incoming webhook.
    pub(super) fn webhook(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let Some(body) = message(request) else {
            return text(StatusCode::BAD_REQUEST, "invalid_payload");
        };
        let (path, now) = (request.uri().path(), self.clock.now());
        match self.state().posts.hook(path, body, now) {
            Ok(()) => text(StatusCode::OK, "ok"),
            Err(error) => text(StatusCode::NOT_FOUND, error),
        }
    }
}

/// Returns the posted JSON object: the body, or the form field `payload`.
fn message(request: &Request<Bytes>) -> Option<Value> {
    let body = request.body();
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let in_form = || serde_json::from_str(field(&pairs(body), "payload")?).ok();
    parsed.or_else(in_form).filter(Value::is_object)
}

fn text(code: StatusCode, text: &'static str) -> Response<Bytes> {
    let mut response = status(code);
    *response.body_mut() = Bytes::from_static(text.as_bytes());
    response
}
