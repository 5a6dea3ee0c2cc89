//! The response to requests that are not from Slack, and their lines in the log.

use std::sync::atomic::{AtomicBool, Ordering};

use http::{StatusCode, Uri};

use crate::gate::Reply;
use crate::log_limit::LogLimit;
use crate::metrics;
use crate::request::VerifyError;

/// Why a request is refused before it reaches the gate.
pub(super) enum Reason {
    Unverified(VerifyError),
    /// The connection broke before the end of the body.
    Cut,
    /// The body did not arrive in time.
    Slow,
}

/// Logs refused requests, a few of each reason.
#[derive(Default)]
pub(super) struct RefusalLog {
    limit: LogLimit,
    /// Whether the signing secret has matched a request. Only then is it certainly the right one.
    has_verified: AtomicBool,
}

impl RefusalLog {
    /// Records that a request was verified.
    pub(super) fn verified(&self) {
        self.has_verified.store(true, Ordering::Relaxed);
    }

    /// Returns the response to a refused request, and logs one line at most. The line has the path
    /// without the query, which may hold secrets.
    pub(super) fn refuse(&self, uri: &Uri, why: &Reason) -> Reply {
        let reason = why.name();
        metrics::REQUESTS.add(["unverified", reason]);
        if let Some(left_out) = self.limit.admit(reason) {
            let (path, error) = (shown(uri.path()), self.explain(why));
            tracing::warn!(path, reason, left_out, error, "a request was refused");
        }
        Reply::new(why.status(), "refused")
    }

    /// Explains the reason. A signature does not show whether the secret or the body is the wrong
    /// part, but other requests do.
    fn explain(&self, why: &Reason) -> String {
        match why {
            Reason::Unverified(VerifyError::Forged) => {
                if self.has_verified.load(Ordering::Relaxed) {
                    "the signature does not match. The signing secret has matched other requests, \
                     so this request is not from Slack, or its body was changed on the way"
                        .into()
                } else {
                    "the signature does not match, and no request has matched so far: check the \
                     signing secret, and that nothing in front of this layer changes the body"
                        .into()
                }
            }
            Reason::Unverified(error) => error.to_string(),
            Reason::Cut => "the connection ended before the end of the body".into(),
            Reason::Slow => "the body did not arrive within 3 s".into(),
        }
    }
}

impl Reason {
    fn name(&self) -> &'static str {
        match self {
            Self::Unverified(error) => error.name(),
            Self::Cut => "cut",
            Self::Slow => "slow",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Unverified(error) => error.status(),
            Self::Cut => StatusCode::BAD_REQUEST,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
        }
    }
}

impl From<VerifyError> for Reason {
    fn from(error: VerifyError) -> Self {
        Self::Unverified(error)
    }
}

/// Returns the beginning of a path. The rest of a long one would fill the log.
fn shown(path: &str) -> &str {
    &path[..path.floor_char_boundary(MAX_PATH)]
}

const MAX_PATH: usize = 200;
