//! Socket Mode: the same handlers, for an app without a public address.

use serde_json::json;
use slack_installs::request::{Kind, SocketModeConnection};

use super::{Bot, note};

/// Handles one text frame of your websocket. Returns the acknowledgement to send, if Slack expects
/// one. Slack waits 3 s for it.
///
/// Use any websocket crate, for example `tokio-tungstenite`. Create the `connection` where you open
/// the websocket.
#[allow(dead_code, reason = "this app listens on HTTP")]
pub(crate) async fn socket_frame(
    bot: &Bot,
    connection: &SocketModeConnection,
    text: String,
) -> Option<String> {
    let request = connection.receive(text.into()).ok()??;
    let id = request.envelope_id()?.to_owned();
    let respond = |text: &str| json!({ "envelope_id": id, "payload": { "text": text } });
    let admitted = match bot.app.serve(request).await {
        Ok(admitted) => admitted,
        // Without an acknowledgement, Slack delivers an event again, and shows an error to the
        // person who waits for the response.
        Err(reply) if !reply.status.is_success() => return None,
        Err(reply) => {
            let mut acknowledgement = json!({ "envelope_id": id });
            if let Some(payload) = reply.payload() {
                acknowledgement["payload"] = payload;
            }
            return Some(acknowledgement.to_string());
        }
    };
    let request = &admitted.authorization.request;
    // A command always has a token. An event can arrive without one.
    let auth = admitted.authorization.authorized.as_deref().ok();
    let token = auth.and_then(|auth| Some((auth, auth.bot_token()?)));
    let response = match (request.kind(), token) {
        (Kind::SlashCommand, Some((auth, token))) => {
            let noted = note(bot, request, &auth.installation_key(), token).await;
            noted.map(|text| respond(&text))
        }
        _ => Ok(json!({ "envelope_id": id })),
    };
    match response {
        Ok(response) => {
            admitted.done().await;
            Some(response.to_string())
        }
        Err(error) => {
            tracing::error!(error, "a note could not be stored");
            admitted.failed().await;
            None
        }
    }
}
