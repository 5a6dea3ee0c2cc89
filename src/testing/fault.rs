//! Faults: errors, delays and lost responses of the fake Slack.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::response::{refuse, status};

/// A failure of the next calls of a method.
///
/// A fault applies to one call, unless you set [`Fault::times`]. The call has no effect, unless you
/// set [`Fault::after_effect`].
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use std::time::Duration;
/// use slack_installs::testing::{FakeSlack, Fault};
///
/// let fake = FakeSlack::start().await?;
/// // The code is spent and the tokens are issued, but the response is lost.
/// fake.inject("oauth.v2.access", Fault::lost().after_effect());
/// fake.inject("auth.test", Fault::rate_limited(Duration::from_secs(30)).times(2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Fault {
    pub(super) after_effect: bool,
    pub(super) delay: Duration,
    kind: Kind,
    times: usize,
}

#[derive(Clone, Debug)]
enum Kind {
    /// The call is only delayed.
    Delay,
    Error(String),
    Lost,
    RateLimited(Duration),
    Unavailable,
}

impl Fault {
    /// Creates a fault that only delays the response.
    #[must_use]
    pub fn delay(delay: Duration) -> Self {
        Self::new(Kind::Delay).delayed(delay)
    }

    /// Creates a fault with the response `{"ok":false,"error":…}` and this error code.
    #[must_use]
    pub fn error(code: impl Into<String>) -> Self {
        Self::new(Kind::Error(code.into()))
    }

    /// Creates a fault without a response.
    ///
    /// Over HTTP, the server closes the connection. In process, the transport returns
    /// [`TransportError::Lost`](crate::slack::TransportError::Lost).
    #[must_use]
    pub fn lost() -> Self {
        Self::new(Kind::Lost)
    }

    /// Creates a fault with HTTP status 429 and this `Retry-After`, in whole seconds.
    #[must_use]
    pub fn rate_limited(retry_after: Duration) -> Self {
        Self::new(Kind::RateLimited(retry_after))
    }

    /// Creates a fault with HTTP status 503 and an HTML page.
    #[must_use]
    pub fn unavailable() -> Self {
        Self::new(Kind::Unavailable)
    }

    /// Applies the fault after the call has had its effect.
    ///
    /// The fault replaces or delays the real response.
    #[must_use]
    pub fn after_effect(mut self) -> Self {
        self.after_effect = true;
        self
    }

    /// Applies the fault to every further call.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(usize::MAX)
    }

    /// Adds a delay, measured by tokio's clock.
    #[must_use]
    pub fn delayed(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Applies the fault to this many calls.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    /// Returns whether the fault replaces the real response.
    pub(super) fn replaces_answer(&self) -> bool {
        !matches!(self.kind, Kind::Delay)
    }

    /// Returns the response that replaces the real one, and the error code in it.
    pub(super) fn answer(&self) -> (Option<Response<Bytes>>, Option<String>) {
        match &self.kind {
            Kind::Delay | Kind::Lost => (None, None),
            Kind::Error(code) => (Some(refuse(code)), Some(code.clone())),
            Kind::RateLimited(wait) => {
                let mut response = refuse("ratelimited");
                *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
                let wait = wait.as_secs().into();
                response.headers_mut().insert(header::RETRY_AFTER, wait);
                (Some(response), None)
            }
            Kind::Unavailable => {
                let page = "<html><body>Service Unavailable</body></html>";
                let mut response = status(StatusCode::SERVICE_UNAVAILABLE);
                *response.body_mut() = Bytes::from_static(page.as_bytes());
                let html = HeaderValue::from_static("text/html");
                response.headers_mut().insert(header::CONTENT_TYPE, html);
                (Some(response), None)
            }
        }
    }

    fn new(kind: Kind) -> Self {
        Self {
            after_effect: false,
            delay: Duration::ZERO,
            kind,
            times: 1,
        }
    }
}

/// The pending faults of each method, in the order of injection.
#[derive(Default)]
pub(super) struct Faults(HashMap<String, VecDeque<Fault>>);

impl Faults {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn inject(&mut self, method: &str, fault: Fault) {
        if fault.times > 0 {
            self.0
                .entry(method.to_owned())
                .or_default()
                .push_back(fault);
        }
    }

    /// Takes the fault that applies to the next call of this method.
    pub(super) fn strike(&mut self, method: &str) -> Option<Fault> {
        let queue = self.0.get_mut(method)?;
        let fault = queue.front_mut()?;
        let struck = fault.clone();
        match fault.times {
            usize::MAX => {}
            1 => {
                queue.pop_front();
            }
            _ => fault.times -= 1,
        }
        Some(struck)
    }
}
