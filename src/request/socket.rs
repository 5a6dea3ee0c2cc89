//! Requests that arrive over a Socket Mode connection.

use bytes::Bytes;

use super::VerifiedRequest;
use super::error::VerifyError;
use super::read::{self, Delivery};
use crate::tenant::AppId;

/// Your app's statement that it opened a connection to Slack itself.
///
/// Socket Mode frames are not signed. They are authentic because your app opened the connection
/// with the app-level token (`xapp-…`), at the address that `apps.connections.open` returned. This
/// crate does not own that connection. So your app creates this type once, where it connects. The
/// type reads only frames. HTTP requests have another form, and go through
/// [`Verifier`](super::Verifier).
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
    /// States that a connection was opened with the app-level token of this app. The caller is
    /// responsible: every frame passed to [`receive`](Self::receive) must have arrived over that
    /// connection.
    #[must_use]
    pub fn opened_with_app_token(app_id: AppId) -> Self {
        Self { app_id }
    }

    /// Reads a text frame of the connection. Returns `None` if the frame carries no request, such
    /// as `hello` and `disconnect`.
    ///
    /// Acknowledge a request's envelope within 3 seconds, with its
    /// [`envelope_id`](VerifiedRequest::envelope_id).
    ///
    /// # Errors
    ///
    /// [`VerifyError::Malformed`] if the frame is not Slack's, [`VerifyError::TooLarge`] if it is
    /// larger than [`DEFAULT_BODY_LIMIT`](super::DEFAULT_BODY_LIMIT), [`VerifyError::OtherApp`] if
    /// it is for another app.
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
