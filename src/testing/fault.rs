//! Slack having a bad day, on purpose.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::answer;

/// What goes wrong with the next calls of a method.
///
/// A fault strikes before the call has any effect, unless [`Fault::after_effect`] is said; once,
/// unless [`Fault::times`] is said.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use std::time::Duration;
/// use slack_installs::testing::{FakeSlack, Fault};
///
/// let fake = FakeSlack::start().await?;
/// // The code is spent and the tokens are issued, but nobody hears of it.
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
    /// None, other than the delay.
    Delay,
    Error(String),
    Lost,
    RateLimited(Duration),
    Unavailable,
}

impl Fault {
    /// Nothing but a delay.
    #[must_use]
    pub fn delay(delay: Duration) -> Self {
        Self::new(Kind::Delay).delayed(delay)
    }

    /// Answers `{"ok":false,"error":…}` with this code.
    #[must_use]
    pub fn error(code: impl Into<String>) -> Self {
        Self::new(Kind::Error(code.into()))
    }

    /// No answer. Over HTTP the connection is closed; in process it is
    /// [`TransportError::Lost`](crate::slack::TransportError::Lost).
    #[must_use]
    pub fn lost() -> Self {
        Self::new(Kind::Lost)
    }

    /// HTTP 429 with this `Retry-After`, in whole seconds.
    #[must_use]
    pub fn rate_limited(retry_after: Duration) -> Self {
        Self::new(Kind::RateLimited(retry_after))
    }

    /// HTTP 503 with an HTML page.
    #[must_use]
    pub fn unavailable() -> Self {
        Self::new(Kind::Unavailable)
    }

    /// Strikes when the call has had its effect: its true answer is replaced, or comes late.
    #[must_use]
    pub fn after_effect(self) -> Self {
        Self {
            after_effect: true,
            ..self
        }
    }

    /// Strikes every call from now on.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(usize::MAX)
    }

    /// Waits this long first, on tokio's clock.
    #[must_use]
    pub fn delayed(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Strikes this many calls.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    /// Whether the app sees this instead of the true answer.
    pub(super) fn replaces_answer(&self) -> bool {
        !matches!(self.kind, Kind::Delay)
    }

    /// What the app sees instead of the true answer, and the error code in it.
    pub(super) fn answer(&self) -> (Option<Response<Bytes>>, Option<String>) {
        match &self.kind {
            Kind::Delay | Kind::Lost => (None, None),
            Kind::Error(code) => (Some(answer::refuse(code)), Some(code.clone())),
            Kind::RateLimited(wait) => {
                let mut response = answer::refuse("ratelimited");
                *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
                let wait = wait.as_secs().into();
                response.headers_mut().insert(header::RETRY_AFTER, wait);
                (Some(response), None)
            }
            Kind::Unavailable => {
                let page = "<html><body>Service Unavailable</body></html>";
                let mut response = Response::new(Bytes::from_static(page.as_bytes()));
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
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

/// The faults that wait, for each method in the order in which they were injected.
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

    /// The fault that strikes this call.
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
