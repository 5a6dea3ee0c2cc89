//! Verifies signed requests from Slack, and finds the tenant of each.
//!
//! [`Verifier::verify`] checks Slack's signature and returns a [`VerifiedRequest`]. Nothing else in
//! this crate names the tenant of a request. The API uses `http`'s types and bytes, so it works
//! behind any server.
//!
//! You cannot create a tenant from an id that was merely read:
//!
//! ```compile_fail
//! use slack_installs::{TeamId, Tenant};
//!
//! let read_somewhere = TeamId::new("T0ALPHA0001").expect("an id");
//! let tenant = Tenant::new(None, Some(read_somewhere), false);
//! ```
//!
//! You cannot create a verified request without a verification:
//!
//! ```compile_fail
//! use slack_installs::request::VerifiedRequest;
//!
//! fn forge(body: bytes::Bytes) -> VerifiedRequest {
//!     VerifiedRequest { body, ..Default::default() }
//! }
//! ```
//!
//! ```compile_fail
//! fn wants_deserialize<T: serde::de::DeserializeOwned>() {}
//! wants_deserialize::<slack_installs::request::VerifiedRequest>();
//! ```
//!
//! You cannot read an HTTP request as a frame of a connection:
//!
//! ```compile_fail
//! use slack_installs::request::{SocketModeConnection, VerifiedRequest};
//!
//! fn skip_the_signature(body: bytes::Bytes) -> Option<VerifiedRequest> {
//!     SocketModeConnection::receive(body).ok().flatten()
//! }
//! ```

mod actor;
mod error;
mod form;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod kind;
mod lifecycle;
mod payload;
mod read;
mod socket;
mod tenant;
mod verify;

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use thiserror::Error;

pub use actor::Actor;
pub use error::{Malformed, VerifyError};
pub use kind::Kind;
pub(crate) use lifecycle::LifecycleEvent;
pub use socket::SocketModeConnection;
#[cfg(feature = "tower")]
pub(crate) use verify::may_be_ssl_check;
pub use verify::{DEFAULT_BODY_LIMIT, Verifier, is_ssl_check};

use crate::tenant::{AppId, Tenant, UserId};

/// A request from Slack. Its signature was checked, or it arrived over your app's own Socket Mode
/// connection.
///
/// `Debug` shows only the kind and the tenant's ids, because the body can hold response URLs,
/// trigger ids and live tokens.
#[derive(Clone)]
pub struct VerifiedRequest {
    body: Bytes,
    contents: read::Contents,
    envelope_id: Option<Box<str>>,
    retry_num: Option<u32>,
}

impl VerifiedRequest {
    /// Returns the person who acted; `None` if nobody acted, or if it is not certain who did.
    ///
    /// It is not always the user for whom Slack delivers an event: that is the
    /// [authorizing user](Self::authorizing_user).
    #[must_use]
    pub fn actor(&self) -> Option<&Actor> {
        self.contents.actor.as_ref()
    }

    /// Returns the app that the request names. Slack omits it in some requests.
    #[must_use]
    pub fn app_id(&self) -> Option<&AppId> {
        self.contents.app_id.as_ref()
    }

    /// Returns the user whose own authorisation made Slack deliver the event; `None` if the event
    /// is delivered to the bot, or if the request is not an event.
    ///
    /// This user did not necessarily act. Their token can read what the event is about.
    #[must_use]
    pub fn authorizing_user(&self) -> Option<&UserId> {
        self.contents.authorizing_user.as_ref()
    }

    /// Returns the body as received: JSON, a form, or a Socket Mode frame.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Returns the id that acknowledges a Socket Mode envelope; `None` for HTTP.
    #[must_use]
    pub fn envelope_id(&self) -> Option<&str> {
        self.envelope_id.as_deref()
    }

    /// Returns the event's id. It is the same in every delivery of the event, so store it if your
    /// app must act only once.
    #[must_use]
    pub fn event_id(&self) -> Option<&str> {
        self.contents.event_id.as_deref()
    }

    /// Returns the time at which Slack dispatched the event, on Slack's clock.
    #[must_use]
    pub fn event_time(&self) -> Option<SystemTime> {
        self.contents.event_time
    }

    /// Returns the type of an event, such as `app_mention`; `None` if the request is not an event.
    #[must_use]
    pub fn event_type(&self) -> Option<&str> {
        match self.kind() {
            Kind::Event { event_type } => Some(event_type),
            Kind::FunctionExecuted => Some("function_executed"),
            _ => None,
        }
    }

    /// Returns the lifecycle event of this request, if it is one.
    pub(crate) fn lifecycle_event(&self) -> Option<LifecycleEvent> {
        self.event_type().and_then(LifecycleEvent::of)
    }

    /// Returns the kind of the request.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.contents.kind
    }

    /// Deserializes the payload into a type of your app. The payload is the JSON body, the JSON in
    /// the form's `payload` field, the payload of a Socket Mode envelope, or the fields of a slash
    /// command as strings.
    ///
    /// ```
    /// #[derive(serde::Deserialize)]
    /// struct Command {
    ///     command: String,
    ///     text: String,
    /// }
    ///
    /// # use slack_installs::request::{PayloadError, VerifiedRequest};
    /// # fn example(request: VerifiedRequest) -> Result<(), PayloadError> {
    /// let command: Command = request.payload()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The payload of an event is the whole callback; the event itself is its field `event`:
    ///
    /// ```
    /// #[derive(serde::Deserialize)]
    /// struct Callback {
    ///     event: Message,
    /// }
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Message {
    ///     channel: String,
    ///     #[serde(default)]
    ///     text: String,
    /// }
    ///
    /// # use slack_installs::request::{PayloadError, VerifiedRequest};
    /// # fn example(request: VerifiedRequest) -> Result<(), PayloadError> {
    /// let Callback { event } = request.payload()?;
    /// println!("{} in {}", event.text, event.channel);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// To read every field, deserialize into a `serde_json::Value`. The ids in a payload do not say
    /// which tenant the request belongs to; use [`tenant`](Self::tenant) for that.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] if the payload does not have that type, or is nested deeper than 127
    /// levels.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        read::payload(&self.contents.source, &self.body).map_err(|error| PayloadError {
            column: error.column(),
            line: error.line(),
        })
    }

    /// Returns the number of this retry, from 1; `None` for a first delivery. Over HTTP it comes
    /// from an unsigned header, so use it for metrics only, not for decisions.
    #[must_use]
    pub fn retry_num(&self) -> Option<u32> {
        self.retry_num
    }

    /// Returns the tenant of the request. `None` if the request names no tenant: such a request has
    /// no installation, and no other tenant's installation may serve it.
    #[must_use]
    pub fn tenant(&self) -> Option<&Tenant> {
        self.contents.tenant.as_ref()
    }

    /// Returns the id of this one interaction. It opens a modal within 3 seconds. Anyone with the
    /// id and a token can use it, so keep it out of logs.
    #[must_use]
    pub fn trigger_id(&self) -> Option<&str> {
        self.contents.trigger_id.as_deref()
    }

    /// Returns the id of the [actor](Self::actor).
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.actor().map(Actor::user)
    }
}

impl fmt::Debug for VerifiedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedRequest")
            .field("kind", self.kind())
            .field("tenant", &self.contents.tenant)
            .finish_non_exhaustive()
    }
}

/// The payload does not have the type that your app requested. The error repeats nothing of the
/// payload.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the payload does not have the expected type, at line {line} column {column}")]
pub struct PayloadError {
    column: usize,
    line: usize,
}

impl PayloadError {
    /// Returns the column at which reading stopped, from 1; 0 for a form.
    #[must_use]
    pub fn column(&self) -> usize {
        self.column
    }

    /// Returns the line at which reading stopped, from 1; 0 for a form.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }
}
