//! Requests that come over a Socket Mode connection.

use bytes::Bytes;

use super::VerifiedRequest;
use super::error::VerifyError;
use super::read::{self, Delivery};
use crate::tenant::AppId;

/// A host's word that it opened a connection to Slack itself.
///
/// Frames of Socket Mode are not signed: the connection, opened with the app-level token
/// (`xapp-…`) at the address that `apps.connections.open` answered, is what makes them Slack's.
/// This crate does not hold that connection, so the host says so by making one of these, once,
/// where it connects. It reads frames only; what comes over HTTP goes through
/// [`Verifier`](super::Verifier), and has another form.
///
/// ```
/// use bytes::Bytes;
/// use slack_installs::AppId;
/// use slack_installs::request::{Kind, SocketModeConnection};
///
/// // After the websocket to wss://… is open:
/// let connection = SocketModeConnection::opened_with_app_token(AppId::new("A0FAKEAPP01")?);
/// let frame = r#"{"envelope_id":"1","type":"slash_commands","payload":{"team_id":"T0ALPHA"}}"#;
/// let request = connection.receive(Bytes::from(frame))?.expect("a frame with a request");
/// assert_eq!(request.kind(), &Kind::SlashCommand);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SocketModeConnection {
    app_id: AppId,
}

impl SocketModeConnection {
    /// States that a connection was opened with the app-level token of this app. Whoever calls
    /// this answers for it: every frame given to [`receive`](Self::receive) must have come over
    /// that connection.
    #[must_use]
    pub fn opened_with_app_token(app_id: AppId) -> Self {
        Self { app_id }
    }

    /// Reads a text frame of the connection. `None` for one that carries no request, such as
    /// `hello` and `disconnect`.
    ///
    /// A request's envelope is to be acknowledged within 3 seconds, by its
    /// [`envelope_id`](VerifiedRequest::envelope_id).
    ///
    /// # Errors
    ///
    /// [`VerifyError::Malformed`] for a frame that is not Slack's, [`VerifyError::TooLarge`] for
    /// one over [`DEFAULT_BODY_LIMIT`](super::DEFAULT_BODY_LIMIT), [`VerifyError::OtherApp`] for
    /// one that concerns another app.
    pub fn receive(&self, frame: Bytes) -> Result<Option<VerifiedRequest>, VerifyError> {
        if frame.len() > super::DEFAULT_BODY_LIMIT {
            return Err(VerifyError::TooLarge);
        }
        let Some(Delivery {
            contents,
            envelope_id,
            retry_num,
        }) = read::socket(&frame)?
        else {
            return Ok(None);
        };
        match &contents.app_id {
            Some(named) if *named != self.app_id => Err(VerifyError::OtherApp),
            _ => Ok(Some(VerifiedRequest {
                body: frame,
                contents,
                envelope_id: Some(envelope_id),
                retry_num: retry_num.filter(|number| *number > 0),
            })),
        }
    }
}
