//! What the log of a refresh says of tokens.

use bytes::Bytes;
use serde_json::{Value, json};
use slack_installs::secret::RefreshToken;
use slack_installs::store::{Credential, InstallId, Mark};

use super::support::hooked_transport::Rewritten;
use super::support::rotation::{Stage, alpha};
use crate::support::log::Log;

#[tokio::test(start_paused = true)]
async fn a_pair_that_is_not_stored_is_logged_without_its_tokens_and_their_hashes() {
    let stage = Stage::installed().await;
    stage.expire();
    let rewrite = |_: &str, body: Bytes| {
        let mut answer: Value = serde_json::from_slice(&body).expect("JSON");
        answer["app_id"] = json!("A0OTHER0001");
        Bytes::from(answer.to_string())
    };
    let transport = Rewritten::over(stage.fake.transport(), rewrite);
    let rotator = stage.rotator_over(stage.config(), transport);
    let (log, logging) = Log::of_this_thread();
    let asked = rotator.token_for(&alpha(), Credential::Bot).await;
    drop(logging);
    asked.expect_err("another app's pair");
    let log = log.text();
    assert!(
        log.contains("Slack returned a token of another app"),
        "{log}"
    );
    let secrets = stage.fake.secrets();
    assert!(secrets.len() >= 4, "two pairs");
    for secret in secrets {
        let mark = Mark::of(&RefreshToken::new(&*secret).expect("a secret"));
        let mark = format!("{mark:?}");
        assert!(!log.contains(&secret) && !log.contains(&mark), "{log}");
    }
    let stored = stage.bot_chain().await;
    let install = format!("{:?}", InstallId::of(&stored.grant));
    assert!(!log.contains(&install), "{log}");
}
