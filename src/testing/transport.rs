//! The fake in process, without a socket.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use url::Url;

use crate::slack::{Transport, TransportError};

use super::core::Core;

/// Calls a [`FakeSlack`](super::FakeSlack) in process. Made by
/// [`FakeSlack::transport`](super::FakeSlack::transport).
///
/// No task and no socket is involved, so that a run with a paused clock and a seeded
/// [`World`](super::World) is the same each time.
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
                "only the fake's own host can be reached".into(),
            ));
        }
        let answer = self.0.answer_in_time(request).await;
        answer.ok_or_else(|| TransportError::Lost("a fault lost the answer".into()))
    }
}
