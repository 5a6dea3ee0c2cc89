//! The app's previous client secret, while the secret is replaced.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use slack_installs::ClientId;
use slack_installs::secret::{ClientSecret, Code, RefreshToken};
use slack_installs::slack::{
    ClientCredentials, Environment, SlackClient, Transport, TransportError,
};

use super::token;

/// Accepts one client secret, refuses every other with this code, and records the secrets.
#[derive(Clone, Debug)]
struct Accepting {
    secret: &'static str,
    code: &'static str,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Accepting {
    fn new(secret: &'static str, code: &'static str) -> Self {
        Self {
            secret,
            code,
            asked: Arc::default(),
        }
    }

    fn client(&self, old: &ClientCredentials) -> SlackClient {
        SlackClient::with_transport(Environment::commercial(), self.clone())
            .with_old_credentials(old.clone())
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("no panic"))
    }
}

#[async_trait]
impl Transport for Accepting {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        let header = request.headers()["authorization"].to_str();
        let secret = match header.expect("visible ASCII").strip_prefix("Basic ") {
            Some(basic) => {
                let pair = STANDARD.decode(basic).expect("base64");
                let pair = String::from_utf8(pair).expect("ASCII");
                pair.split_once(':').expect("a pair").1.to_owned()
            }
            None => url::form_urlencoded::parse(request.body())
                .find(|(name, _)| name == "client_secret")
                .map(|(_, value)| value.into_owned())
                .expect("the form has the secret"),
        };
        let body = if secret == self.secret {
            r#"{"ok": true, "app_id": "A0FAKEAPP01", "team": {"id": "T0ALPHA0001"},
                "enterprise": null, "access_token": "xoxe.xoxb-1-a", "token_type": "bot",
                "bot_user_id": "U0BOTA00001", "refresh_token": "xoxe-1-a", "expires_in": 43200}"#
                .to_owned()
        } else {
            format!(r#"{{"ok": false, "error": "{}"}}"#, self.code)
        };
        self.asked.lock().expect("no panic").push(secret);
        Ok(Response::new(body.into()))
    }
}

fn app(client_id: &str, secret: &str) -> ClientCredentials {
    ClientCredentials {
        client_id: ClientId::new(client_id).expect("an id"),
        client_secret: ClientSecret::new(secret).expect("a secret"),
    }
}

/// Makes every call that sends the client secret. Returns whether each succeeded, and the secrets
/// that it sent.
async fn calls(slack: &Accepting, old: &ClientCredentials) -> Vec<(bool, Vec<String>)> {
    let (client, new) = (slack.client(old), app("1.2", "new"));
    let code = Code::new("code").expect("a code");
    let refresh = RefreshToken::new("xoxe-1-old").expect("a token");
    let mut outcomes = Vec::new();
    let exchanged = client.oauth_v2_access(&new, &code, "https://a.example/cb");
    outcomes.push((exchanged.await.is_ok(), slack.asked()));
    outcomes.push((client.refresh(&new, &refresh).await.is_ok(), slack.asked()));
    let migrated = client.oauth_v2_exchange(&new, &token()).await;
    outcomes.push((migrated.is_ok(), slack.asked()));
    let uninstalled = client.apps_uninstall(&new, &token()).await;
    outcomes.push((uninstalled.is_ok(), slack.asked()));
    outcomes
}

#[tokio::test]
async fn the_new_secret_is_tried_first_and_the_old_one_if_slack_refuses_it() {
    let cases: [(&str, &str, &str, bool, &[&str]); 5] = [
        ("new", "bad_client_secret", "1.2", true, &["new"]),
        ("old", "bad_client_secret", "1.2", true, &["new", "old"]),
        ("other", "bad_client_secret", "1.2", false, &["new", "old"]),
        // The old secret of another app is not sent.
        ("old", "bad_client_secret", "1.3", false, &["new"]),
        // Any other error may have spent something.
        ("old", "invalid_auth", "1.2", false, &["new"]),
    ];
    for (accepted, code, old_app, succeeds, secrets) in cases {
        let slack = Accepting::new(accepted, code);
        for (succeeded, asked) in calls(&slack, &app(old_app, "old")).await {
            assert_eq!(succeeded, succeeds, "{accepted} {code} {old_app}");
            assert_eq!(asked, secrets, "{accepted} {code} {old_app}");
        }
    }
}
