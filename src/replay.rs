//! Handles each request once: stores the ids of handled requests.
//!
//! A signature is valid for five minutes and for any number of requests. Slack also repeats an
//! event if no response arrives in time. To act only once, an app must store the
//! [`event_id`](VerifiedRequest::event_id) or [`trigger_id`](VerifiedRequest::trigger_id).
//! [`ReplayGuard`] stores it in the same database as the installations.

use std::sync::Arc;
use std::time::Duration;

use ring::digest;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::error_chain::error_chain;
use crate::installation::Revision;
use crate::request::VerifiedRequest;
use crate::store::{Claim, Error, SeenId, SeenStore, in_time};

/// Lets each request through once. Cheap to clone.
///
/// A request without an event id and a trigger id always passes. Examples are a closed modal and
/// the options of a menu.
#[derive(Clone)]
pub struct ReplayGuard {
    seen: Arc<dyn SeenStore>,
    clock: Clock,
}

/// Says whether your app may handle a request.
#[derive(Debug)]
pub enum Entry {
    /// This or another process is handling the request. Respond with a 5xx status: Slack then
    /// repeats the request.
    InProgress,
    /// Your app may handle the request now.
    New(Pass),
    /// The request was already handled. Respond with status 200.
    Repeated,
}

/// Permits the handling of one request. If it is dropped, the request counts as not handled.
#[derive(Debug)]
pub struct Pass(Option<Held>);

#[derive(Debug)]
struct Held {
    guard: ReplayGuard,
    id: SeenId,
    claim: Revision,
}

impl ReplayGuard {
    /// Creates a guard that keeps the ids in this store.
    #[must_use]
    pub fn new(seen: impl SeenStore) -> Self {
        Self {
            seen: Arc::new(seen),
            clock: Clock::default(),
        }
    }

    /// Sets the clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Claims a request, so that no other process handles it. Takes at most 2 s, because Slack
    /// gives a handler 3 s.
    ///
    /// # Errors
    ///
    /// Returns [`Error`] if the store fails. It is then unknown whether the request was handled.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the request may stay claimed for [`CLAIM`].
    pub async fn enter(&self, request: &VerifiedRequest) -> Result<Entry, Error> {
        let Some(id) = id(request) else {
            return Ok(Entry::New(Pass(None)));
        };
        let now = self.clock.now();
        let claim = self.seen.claim(&id, now, now + CLAIM);
        Ok(match in_time(Instant::now() + PATIENCE, claim).await? {
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

debug_fields!(ReplayGuard: seen);

impl Pass {
    /// Records for [`RETENTION`] that the request was handled. Takes at most 10 s.
    ///
    /// # Errors
    ///
    /// Returns [`Error`] if the store fails. The request may then be handled again after [`CLAIM`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the request may be handled again after [`CLAIM`]. The tower layer
    /// runs it in its own task.
    pub async fn done(mut self) -> Result<(), Error> {
        if let Some(Held { guard, id, claim }) = self.0.take() {
            let until = guard.clock.now() + RETENTION;
            let finish = guard.seen.finish(&id, claim, until);
            in_time(Instant::now() + NOTE_PATIENCE, finish).await?;
        }
        Ok(())
    }

    /// Releases a request whose handling failed, so that it can be handled again at once. Takes at
    /// most 10 s.
    ///
    /// # Errors
    ///
    /// Returns [`Error`] if the store fails. The request can then be handled again after [`CLAIM`].
    pub async fn failed(mut self) -> Result<(), Error> {
        if let Some(Held { guard, id, claim }) = self.0.take() {
            let release = guard.seen.release(&id, claim);
            in_time(Instant::now() + NOTE_PATIENCE, release).await?;
        }
        Ok(())
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Some(Held { guard, id, claim }) = self.0.take() else {
            return;
        };
        // The handler was cancelled: a server drops it when Slack closes the connection. If there
        // is no runtime, the claim expires after `CLAIM`.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let release = guard.seen.release(&id, claim);
                if let Err(error) = in_time(Instant::now() + NOTE_PATIENCE, release).await {
                    tracing::warn!(
                        error = error_chain(&error),
                        "cannot release the claim of a cancelled request; it expires in two minutes"
                    );
                }
            });
        }
    }
}

/// Returns the stored id of a request. It is a hash, because a trigger id can open a modal.
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

/// How long a request waits for its claim.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the result of a request is written. The response to Slack does not wait for it.
const NOTE_PATIENCE: Duration = Duration::from_secs(10);

/// How long a claim lasts, before another process can handle the request.
///
/// Slack closes the connection after 3 seconds. It repeats an event at once, after one minute and
/// after five minutes. The claim has expired at the last repetition.
pub const CLAIM: Duration = Duration::from_secs(120);

/// How long the id of a handled request is stored. With *Delayed Events*, Slack repeats an event
/// for 24 hours (<https://docs.slack.dev/apis/events-api>).
pub const RETENTION: Duration = Duration::from_secs(26 * 3600);
