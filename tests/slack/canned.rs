//! A transport that returns the same response to each request, and records the requests.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use serde_json::Value;
use slack_installs::slack::{Environment, SlackClient, Transport, TransportError};

#[derive(Clone, Debug)]
pub(crate) struct Canned {
    answer: Response<Bytes>,
    asked: Arc<Mutex<Vec<Request<Bytes>>>>,
}

impl Canned {
    pub(crate) fn new(answer: Response<Bytes>) -> Self {
        Self {
            answer,
            asked: Arc::default(),
        }
    }

    /// Returns this JSON with status 200 and without a `Date`.
    pub(crate) fn json(body: &Value) -> Self {
        Self::new(Response::new(body.to_string().into()))
    }

    /// Returns a response with this status, headers and body.
    pub(crate) fn of(status: u16, headers: &[(&'static str, &str)], body: &str) -> Self {
        let mut answer = Response::builder().status(status);
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        let body = Bytes::copy_from_slice(body.as_bytes());
        Self::new(answer.body(body).expect("well-formed headers"))
    }

    pub(crate) fn client(&self) -> SlackClient {
        SlackClient::with_transport(Environment::commercial(), self.clone())
    }

    /// Returns the only request that was sent.
    pub(crate) fn asked(&self) -> Request<Bytes> {
        let asked = self.asked.lock().expect("no panic");
        assert_eq!(asked.len(), 1, "one call is one request");
        asked[0].clone()
    }
}

#[async_trait]
impl Transport for Canned {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        self.asked.lock().expect("no panic").push(request);
        Ok(self.answer.clone())
    }
}
