//! Handling each request once: what was handled is remembered, by the id that Slack gave it.
//!
//! A signature is good for five minutes and for any number of requests, and Slack repeats an
//! event that was not answered in time. Whoever must act once remembers
//! [`event_id`](VerifiedRequest::event_id) or [`trigger_id`](VerifiedRequest::trigger_id); this
//! does it, in the same database as the installations.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ring::digest;
use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::error_chain::error_chain;
use crate::installation::Revision;
use crate::request::VerifiedRequest;
use crate::store::{Claim, Error, SeenId, SeenStore};

/// Lets each request through once. Cheap to clone.
///
/// A request without an event id and without a trigger id (a closed modal, options for a menu)
/// always passes.
#[derive(Clone)]
pub struct ReplayGuard {
    seen: Arc<dyn SeenStore>,
    clock: Clock,
}

/// Whether a request may be handled.
#[derive(Debug)]
pub enum Entry {
    /// It is being handled, perhaps by another process. Answer with a 5xx: Slack repeats it, and
    /// finds it handled, or not.
    InProgress,
    /// It may be handled now.
    New(Pass),
    /// It was handled. Answer 200.
    Repeated,
}

/// The right to handle one request. Dropped, the request counts as not handled.
#[derive(Debug)]
pub struct Pass(Option<Held>);

#[derive(Debug)]
struct Held {
    guard: ReplayGuard,
    id: SeenId,
    claim: Revision,
}

impl ReplayGuard {
    /// A guard that remembers in this store.
    #[must_use]
    pub fn new(seen: impl SeenStore) -> Self {
        Self {
            seen: Arc::new(seen),
            clock: Clock::default(),
        }
    }

    /// The same guard, with another clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Claims a request for its handling.
    ///
    /// # Errors
    ///
    /// [`Error`] if the store does not answer: it is unknown whether it was handled.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the request may stay claimed for [`CLAIM`], and may be handled after that.
    pub async fn enter(&self, request: &VerifiedRequest) -> Result<Entry, Error> {
        let Some(id) = id(request) else {
            return Ok(Entry::New(Pass(None)));
        };
        let now = self.clock.now();
        Ok(match self.seen.claim(&id, now, now + CLAIM).await? {
            Claim::Finished => Entry::Repeated,
            Claim::InProgress => Entry::InProgress,
            Claim::Taken(claim) => Entry::New(Pass(Some(Held {
                guard: self.clone(),
                id,
                claim,
            }))),
        })
    }
}

impl fmt::Debug for ReplayGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayGuard")
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

impl Pass {
    /// The request was handled: it is remembered for [`RETENTION`].
    ///
    /// # Errors
    ///
    /// [`Error`] if the store does not answer: the request may be handled again after [`CLAIM`].
    ///
    /// # Cancel safety
    ///
    /// Dropped, the request may be handled again after [`CLAIM`]. The tower layer runs it on a
    /// task of its own.
    pub async fn done(mut self) -> Result<(), Error> {
        if let Some(Held { guard, id, claim }) = self.0.take() {
            let until = guard.clock.now() + RETENTION;
            guard.seen.finish(&id, claim, until).await?;
        }
        Ok(())
    }

    /// The handling failed: it may be tried again at once.
    ///
    /// # Errors
    ///
    /// [`Error`] if the store does not answer: it may be tried again after [`CLAIM`].
    pub async fn failed(mut self) -> Result<(), Error> {
        if let Some(Held { guard, id, claim }) = self.0.take() {
            guard.seen.release(&id, claim).await?;
        }
        Ok(())
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Some(Held { guard, id, claim }) = self.0.take() else {
            return;
        };
        // The handler was cancelled: a server drops it when Slack hangs up. Without a runtime
        // the claim ends by itself.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = guard.seen.release(&id, claim).await {
                    tracing::warn!(
                        error = error_chain(&error),
                        "a request stays claimed for a while"
                    );
                }
            });
        }
    }
}

/// The name of a request: a hash, since a trigger id opens modals.
fn id(request: &VerifiedRequest) -> Option<SeenId> {
    let text = match (request.event_id(), request.trigger_id()) {
        (Some(event), _) => format!("event/{event}"),
        (None, Some(trigger)) => format!("trigger/{trigger}"),
        (None, None) => return None,
    };
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    let hash = hash.as_ref().try_into();
    Some(SeenId(hash.expect("SHA-256 has 32 bytes")))
}

/// How long a handler may take before somebody else may try. Slack hangs up after 3 seconds, and
/// repeats an event at once, after one minute and after five: the last one finds it free.
pub const CLAIM: Duration = Duration::from_secs(120);

/// How long a request is remembered. With *Delayed Events* Slack repeats one for 24 hours
/// (<https://docs.slack.dev/apis/events-api>).
pub const RETENTION: Duration = Duration::from_secs(26 * 3600);
