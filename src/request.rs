//! The way in: from a signed request to whose it is.
//!
//! [`Verifier::verify`] checks Slack's signature and gives a [`VerifiedRequest`], the only thing
//! in this crate that names a tenant for a request. Everything is on `http`'s types and bytes, so
//! any server can stand in front.
//!
//! A tenant cannot be made from an id that was merely read:
//!
//! ```compile_fail
//! use slack_installs::{TeamId, Tenant};
//!
//! let read_somewhere = TeamId::new("T0ALPHA0001").expect("an id");
//! let tenant = Tenant::new(None, Some(read_somewhere), false);
//! ```
//!
//! nor a verified request from anything but a verification:
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
//! and an HTTP request is not a frame of a connection:
//!
//! ```compile_fail
//! use slack_installs::request::{SocketModeConnection, VerifiedRequest};
//!
//! fn skip_the_signature(body: bytes::Bytes) -> Option<VerifiedRequest> {
//!     SocketModeConnection::receive(body).ok().flatten()
//! }
//! ```

mod error;
mod form;
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

pub use error::{Malformed, VerifyError};
pub use kind::Kind;
pub(crate) use lifecycle::LifecycleEvent;
pub use socket::SocketModeConnection;
pub use verify::{DEFAULT_BODY_LIMIT, Verifier, is_ssl_check};

use crate::tenant::{AppId, Tenant, UserId};

/// A request that Slack made: its signature was checked, or it came over the host's own Socket
/// Mode connection.
///
/// `Debug` shows the kind and the tenant's ids, nothing else: the body can hold response URLs,
/// trigger ids and live tokens.
#[derive(Clone)]
pub struct VerifiedRequest {
    body: Bytes,
    contents: read::Contents,
    envelope_id: Option<Box<str>>,
    retry_num: Option<u32>,
}

impl VerifiedRequest {
    /// The app that the request names. Slack leaves it out of some.
    #[must_use]
    pub fn app_id(&self) -> Option<&AppId> {
        self.contents.app_id.as_ref()
    }

    /// The body as it was received: JSON, a form, or a Socket Mode frame.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The id by which a Socket Mode envelope is acknowledged; `None` for HTTP.
    #[must_use]
    pub fn envelope_id(&self) -> Option<&str> {
        self.envelope_id.as_deref()
    }

    /// The event's id, the same in every delivery of it: what to remember to act once.
    #[must_use]
    pub fn event_id(&self) -> Option<&str> {
        self.contents.event_id.as_deref()
    }

    /// When Slack dispatched the event, on Slack's clock.
    #[must_use]
    pub fn event_time(&self) -> Option<SystemTime> {
        self.contents.event_time
    }

    /// The type of an event, such as `app_mention`; `None` for what is not an event.
    #[must_use]
    pub fn event_type(&self) -> Option<&str> {
        match self.kind() {
            Kind::Event { event_type } => Some(event_type),
            Kind::FunctionExecuted => Some("function_executed"),
            _ => None,
        }
    }

    /// The event of the app's own life that this is, if it is one.
    pub(crate) fn lifecycle_event(&self) -> Option<LifecycleEvent> {
        self.event_type().and_then(LifecycleEvent::of)
    }

    /// What the request is.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.contents.kind
    }

    /// The payload as a type of the host's: the JSON body, the JSON in the form's `payload`
    /// field, the payload of a Socket Mode envelope, or a slash command's fields as texts.
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
    /// The payload of an event is the whole callback; the event itself is its member `event`:
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
    /// Who wants every field asks for a `serde_json::Value`. The ids in it are what the request
    /// says, not whose it is: that is [`tenant`](Self::tenant).
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

    /// Which retry this delivery is, from 1; `None` for a first delivery. Over HTTP it stands in
    /// a header that is not signed: good for metrics, not for decisions.
    #[must_use]
    pub fn retry_num(&self) -> Option<u32> {
        self.retry_num
    }

    /// Whom the request concerns. `None` if it names nobody: such a request has no installation,
    /// and no other one may serve it.
    #[must_use]
    pub fn tenant(&self) -> Option<&Tenant> {
        self.contents.tenant.as_ref()
    }

    /// The id that opens a modal, for 3 seconds, and names this one interaction. Whoever has it
    /// and a token can use it: keep it out of logs.
    #[must_use]
    pub fn trigger_id(&self) -> Option<&str> {
        self.contents.trigger_id.as_deref()
    }

    /// The user who acts. `None` if nobody does, or if it is not certain who.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.contents.user.as_ref()
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

/// A payload is not of the type that the host asked for. What stands there is not repeated.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the payload is not of the expected type, at line {line} column {column}")]
pub struct PayloadError {
    column: usize,
    line: usize,
}

impl PayloadError {
    /// The column at which reading stopped, from 1; 0 for a form.
    #[must_use]
    pub fn column(&self) -> usize {
        self.column
    }

    /// The line at which reading stopped, from 1; 0 for a form.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }
}
