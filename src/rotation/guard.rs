//! What keeps a mistake of ours from looking like thousands of dead installations.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::slack::ErrorCode;

/// Opens when Slack refuses our own configuration: then nobody calls, but one now and then.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<Option<Open>>);

#[derive(Debug)]
struct Open {
    code: ErrorCode,
    pause: Duration,
    probe_at: Instant,
}

impl Breaker {
    /// Why no call is let through now; `None` if one is.
    pub(super) fn reason(&self) -> Option<ErrorCode> {
        let open = self.open();
        let closed = open.as_ref().filter(|open| Instant::now() < open.probe_at);
        closed.map(|open| open.code.clone())
    }

    /// Lets a call through, or says why not.
    pub(super) fn check(&self) -> Result<(), ErrorCode> {
        let mut open = self.open();
        let Some(open) = open.as_mut() else {
            return Ok(());
        };
        let now = Instant::now();
        if now < open.probe_at {
            return Err(open.code.clone());
        }
        // This caller finds out; the others wait for what it brings.
        open.probe_at = now + open.pause;
        Ok(())
    }

    pub(super) fn trip(&self, code: &ErrorCode) {
        let mut open = self.open();
        let pause = match &*open {
            Some(open) => (open.pause * 2).min(LONGEST),
            None => FIRST,
        };
        let probe_at = Instant::now() + pause;
        tracing::error!(%code, "Slack refuses the app's own configuration; refreshes pause");
        *open = Some(Open {
            code: code.clone(),
            pause,
            probe_at,
        });
    }

    /// Slack took our credentials.
    pub(super) fn reset(&self) {
        if self.open().take().is_some() {
            tracing::info!("Slack takes the app's configuration again");
        }
    }

    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts chains found dead; beyond a limit it is more likely our mistake, or Slack's.
#[derive(Debug, Default)]
pub(super) struct Deaths(Mutex<VecDeque<Instant>>);

impl Deaths {
    /// Whether one more may be marked. Counts it if so.
    pub(super) fn allow(&self) -> bool {
        let now = Instant::now();
        let mut deaths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while deaths
            .front()
            .is_some_and(|death| now.duration_since(*death) > WINDOW)
        {
            deaths.pop_front();
        }
        let allowed = deaths.len() < LIMIT;
        if allowed {
            deaths.push_back(now);
        }
        allowed
    }
}

const FIRST: Duration = Duration::from_secs(10);

/// A new secret takes effect for us within this time.
const LONGEST: Duration = Duration::from_secs(5 * 60);

/// Deaths are counted over this time, and none is marked for as long once there are too many.
pub(super) const WINDOW: Duration = Duration::from_secs(5 * 60);

/// Uninstallations come as events and end no chain here, so that many deaths in one process
/// within [`WINDOW`] are not people leaving.
const LIMIT: usize = 20;
