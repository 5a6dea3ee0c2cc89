//! Calls the fake in process, without a socket.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use url::Url;

use crate::slack::{Transport, TransportError};

use super::core::Core;

/// Calls a [`FakeSlack`](super::FakeSlack) in process.
///
/// Created by [`FakeSlack::transport`](super::FakeSlack::transport). It uses no task and no socket,
/// so a run with a paused clock and a seeded [`World`](super::World) is repeatable.
#[derive(Clone)]
pub struct FakeTransport(pub(super) Arc<Core>);

impl fmt::Debug for FakeTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeTransport")
    }
}

#[async_trait]
impl Transport for FakeTransport {
    async fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let url = Url::parse(&request.uri().to_string());
        if !url.is_ok_and(|url| url.origin() == self.0.environment.base().origin()) {
            return Err(TransportError::NotSent(
                "the URL is not on the fake's host; this transport calls no other host".into(),
            ));
        }
        let answer = self.0.answer_in_time(request).await;
        answer.ok_or_else(|| TransportError::Lost("an injected fault lost the response".into()))
    }
}
