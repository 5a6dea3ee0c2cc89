//! Socket Mode: deliveries as the frames of a websocket.

use serde_json::{Map, Value, json};

use super::FakeSlack;
use super::delivery::{Content, Delivery};
use super::mint::HEX;

impl FakeSlack {
    /// Returns this delivery as a text frame of Socket Mode.
    ///
    /// The frame has no signature, because the connection authenticates it. Each frame has an
    /// `envelope_id` of its own. The fake opens no websocket: give the frame to the code that your
    /// app runs for each frame.
    ///
    /// A [`retry`](Delivery::retry) of an event is shown in the envelope. Slack accepts a response
    /// in the acknowledgement of a slash command, of a submitted modal and of a request for
    /// options.
    ///
    /// ```
    /// use slack_installs::request::SocketModeConnection;
    /// use slack_installs::testing::{FakeSlack, World};
    ///
    /// let fake = FakeSlack::in_process(World::default());
    /// let connection = SocketModeConnection::opened_with_app_token(fake.app_id());
    /// let command = fake.slash_command("U0ADMIN0001", "/hello", "world");
    /// let request = connection.receive(fake.socket_frame(&command).into())?;
    /// assert!(request.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if Slack does not send this delivery over Socket Mode: `url_verification`,
    /// `ssl_check`, or one whose body was replaced.
    #[must_use]
    pub fn socket_frame(&self, delivery: &Delivery) -> String {
        let mut frame = match &delivery.content {
            Content::Form(fields) if fields.iter().any(|(name, _)| name == "command") => {
                let text =
                    |(name, value): &(String, String)| (name.clone(), Value::from(value.clone()));
                let payload: Map<String, Value> = fields.iter().map(text).collect();
                envelope("slash_commands", true, &payload.into())
            }
            Content::Json(body) if body["type"] != "url_verification" => {
                let (attempt, reason) = delivery.retry.unwrap_or_default();
                let mut frame = envelope("events_api", false, body);
                frame["retry_attempt"] = attempt.into();
                frame["retry_reason"] = socket_reason(reason).into();
                frame
            }
            Content::Payload(payload) => {
                let kind = payload["type"].as_str().unwrap_or_default();
                let accepts = ["block_suggestion", "view_submission"].contains(&kind);
                envelope("interactive", accepts, payload)
            }
            Content::Form(_) | Content::Json(_) | Content::Raw(..) => panic!(
                "Slack does not send this over Socket Mode: it sends events, slash commands and \
                 interactive payloads"
            ),
        };
        let mut state = self.core.state();
        let mut hex = |len| state.mint.text(HEX, len);
        let parts = [hex(8), hex(4), hex(4), hex(4), hex(12)];
        frame["envelope_id"] = parts.join("-").into();
        frame.to_string()
    }

    /// Returns the first frame of a Socket Mode connection.
    #[must_use]
    pub fn socket_hello(&self) -> String {
        json!({
            "type": "hello",
            "num_connections": 1,
            "debug_info": {
                "host": "fake-slack",
                "build_number": 1,
                "approximate_connection_time": 18060,
            },
            "connection_info": { "app_id": self.core.app.id },
        })
        .to_string()
    }

    /// Returns the frame with which Slack announces the end of a Socket Mode connection.
    ///
    /// The reason is one of Slack's: `warning`, `refresh_requested` or `link_disabled`.
    #[must_use]
    pub fn socket_disconnect(&self, reason: &str) -> String {
        json!({
            "type": "disconnect",
            "reason": reason,
            "debug_info": { "host": "fake-slack" },
        })
        .to_string()
    }
}

/// Returns a frame without its `envelope_id`.
fn envelope(kind: &str, accepts_response_payload: bool, payload: &Value) -> Value {
    json!({
        "type": kind,
        "accepts_response_payload": accepts_response_payload,
        "payload": payload,
    })
}

/// Returns the reason of a repetition over Socket Mode. Over HTTP, Slack calls a late response
/// `http_timeout`.
fn socket_reason(reason: &str) -> &str {
    match reason {
        "http_timeout" => "timeout",
        other => other,
    }
}
