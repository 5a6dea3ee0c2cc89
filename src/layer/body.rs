//! Receives the body of a request whose headers were accepted.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::refusal_log::Reason;
use crate::request::{Verifier, VerifyError, is_ssl_check, may_be_ssl_check};

/// What the layer knows of a request after it was received.
pub(super) enum Received {
    /// The body of a request that may be Slack's.
    Body(Bytes),
    /// Slack's certificate probe, whose headers alone would be refused.
    Probe,
}

/// Checks a request's headers, and receives its body if they are acceptable.
///
/// Otherwise reads nothing, with one exception: Slack does not document whether it signs its
/// certificate probes. So a form that is known to be as small as a probe is read first.
pub(super) async fn receive<B>(
    verifier: &Verifier,
    headers: &HeaderMap,
    body: B,
) -> Result<Received, Reason>
where
    B: Body + Send,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let limit = verifier.body_limit();
    let size = body.size_hint();
    let is_too_large = usize::try_from(size.lower()).map_or(true, |least| least > limit);
    let checked = if is_too_large {
        Err(VerifyError::TooLarge)
    } else {
        verifier.check_headers(headers)
    };
    match checked {
        Ok(()) => Ok(Received::Body(collect(body, limit).await?)),
        Err(error) => match may_be_ssl_check(headers, size.upper()) {
            Some(limit) if is_probe(headers, collect(body, limit).await) => Ok(Received::Probe),
            _ => Err(error.into()),
        },
    }
}

fn is_probe(headers: &HeaderMap, body: Result<Bytes, Reason>) -> bool {
    body.is_ok_and(|body| is_ssl_check(headers, &body))
}

async fn collect<B>(body: B, limit: usize) -> Result<Bytes, Reason>
where
    B: Body + Send,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let body = Limited::new(body, limit).collect();
    match tokio::time::timeout(PATIENCE, body).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(VerifyError::TooLarge.into()),
        Ok(Err(_)) => Err(Reason::Cut),
        Err(_) => Err(Reason::Slow),
    }
}

/// Slack itself waits 3 s for a response (<https://docs.slack.dev/apis/events-api>).
const PATIENCE: Duration = Duration::from_secs(3);
