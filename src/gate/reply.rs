//! The response to a request that your app does not receive.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::request::VerifiedRequest;

/// The response to a request that your app does not receive.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Reply {
    /// The HTTP status. Over Socket Mode, acknowledge the envelope only if it is 200, with the
    /// [`payload`](Self::payload). Without an acknowledgement, Slack delivers an event again, and
    /// shows an error to a person who waits.
    pub status: StatusCode,
    /// The body, often empty. Slack shows it to the person who typed a command.
    pub text: String,
    /// Whether the body is JSON. It is plain text otherwise.
    pub is_json: bool,
}

impl Reply {
    /// Makes a response with this status and a body of plain text.
    #[must_use]
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
            is_json: false,
        }
    }

    /// Makes an empty 200, after which Slack does not repeat the request.
    #[must_use]
    pub fn empty() -> Self {
        Self::text("")
    }

    /// Makes a 200 with plain text. Slack shows it to the person who typed a command.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(StatusCode::OK, text)
    }

    /// Makes a 200 with JSON, such as a message with blocks, or a modal.
    #[must_use]
    pub fn json(body: &Value) -> Self {
        Self {
            is_json: true,
            ..Self::text(body.to_string())
        }
    }

    /// Returns the `payload` of an acknowledgement over Socket Mode: the JSON, or a message with
    /// the text. `None` if there is nothing to show, or if the status is not 200.
    #[must_use]
    pub fn payload(&self) -> Option<Value> {
        if self.status != StatusCode::OK || self.text.is_empty() {
            None
        } else if self.is_json {
            serde_json::from_str(&self.text).ok()
        } else {
            Some(json!({ "text": self.text }))
        }
    }

    /// Returns the value of the header `content-type`.
    #[cfg(feature = "tower")]
    pub(crate) fn content_type(&self) -> http::HeaderValue {
        http::HeaderValue::from_static(if self.is_json {
            "application/json"
        } else {
            "text/plain; charset=utf-8"
        })
    }

    /// Returns a response after which Slack repeats the event.
    pub(super) fn later() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not done yet")
    }

    /// Returns a response after which Slack shows the person its own error.
    pub(super) fn refused() -> Self {
        Self::new(StatusCode::FORBIDDEN, "refused")
    }

    /// Returns the response to a submitted modal that shows this text in another modal on top. The
    /// submitted one stays open below, with what the person has entered.
    pub(super) fn modal_on_top(request: &VerifiedRequest, text: &str) -> Self {
        let submitted: Option<Submitted> = request.payload().ok();
        // The app's own title is in the person's language.
        let title = submitted.and_then(|submitted| submitted.view.title.text);
        Self::json(&json!({
            "response_action": "push",
            "view": {
                "type": "modal",
                "title": {
                    "type": "plain_text",
                    "text": title.filter(|title| !title.is_empty()).unwrap_or_else(|| TITLE.into()),
                },
                "blocks": [{
                    "type": "section",
                    "text": { "type": "mrkdwn", "text": text },
                }],
            },
        }))
    }

    /// Returns the response to a legacy dialog that shows this text at its first element; `None` if
    /// there is none.
    pub(super) fn dialog_error(request: &VerifiedRequest, text: &str) -> Option<Self> {
        let dialog: Dialog = request.payload().ok()?;
        let (name, _) = dialog.submission.first_key_value()?;
        let body = json!({ "errors": [{ "name": name, "error": text }] });
        Some(Self::json(&body))
    }

    /// Returns the response to a click in a legacy message that shows this text to the person, and
    /// leaves the message as it is.
    pub(super) fn message_to_the_person(text: &str) -> Self {
        Self::json(&json!({
            "response_type": "ephemeral",
            "replace_original": false,
            "text": text,
        }))
    }
}

/// A submitted modal.
#[derive(Deserialize)]
struct Submitted {
    view: View,
}

#[derive(Deserialize)]
struct View {
    title: Title,
}

#[derive(Deserialize)]
struct Title {
    text: Option<String>,
}

/// A submitted legacy dialog.
#[derive(Deserialize)]
struct Dialog {
    submission: BTreeMap<String, IgnoredAny>,
}

/// The title of a modal, if the submitted one has none.
const TITLE: &str = "This app";
