//! What the log of a refresh says of tokens.

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::{Value, json};
use slack_installs::InstallationKey;
use slack_installs::secret::RefreshToken;
use slack_installs::store::{Credential, InstallId, Mark};
use slack_installs::testing::{Faults, Rotation};

use super::support::hooked_transport::Rewritten;
use super::support::rotation::{Stage, alpha, secs, spawn_worker};
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

/// The tenants whose tokens have expired.
const TENANTS: usize = 30;

async fn during_an_outage() -> (Stage, Vec<InstallationKey>) {
    let stage = Stage::new(Rotation::default()).await;
    let tenants = stage.fleet(TENANTS).await;
    stage.expire();
    (stage, tenants)
}

/// A read that fails is not logged: its caller gets the error.
const COMMITS_LOST: Faults = Faults {
    lost_answers: 0,
    lost_commits: 1,
    lost_reads: 0,
};

#[tokio::test(start_paused = true)]
async fn an_unreachable_database_is_logged_ten_times_a_minute_for_all_tenants_together() {
    let (stage, tenants) = during_an_outage().await;
    let rotator = stage.rotator().within(secs(2));
    stage.store.backend().set_faults(COMMITS_LOST);
    let (log, logging) = Log::of_this_thread();
    let asked = tenants
        .iter()
        .map(|tenant| rotator.token_for(tenant, Credential::Bot));
    for asked in join_all(asked).await {
        asked.expect_err("the database cannot be reached");
    }
    // Until the flights end, too.
    tokio::time::sleep(secs(30)).await;
    drop(logging);
    let log = log.text();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert!((1..=10).contains(&warnings.len()), "{log}");
    for warning in warnings {
        assert!(warning.contains("lost on purpose"), "{warning}");
        assert!(!warning.contains("malformed"), "{warning}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_logs_ten_due_chains_a_minute_that_it_cannot_write() {
    let (stage, _) = during_an_outage().await;
    let rotator = stage.rotator();
    stage.store.backend().set_faults(COMMITS_LOST);
    let (log, logging) = Log::of_this_thread();
    let worker = spawn_worker(&rotator);
    tokio::time::sleep(secs(30)).await;
    worker.abort();
    drop(logging);
    let log = log.text();
    let warnings = log.lines().filter(|line| line.contains("WARN")).count();
    assert!((1..=20).contains(&warnings), "{warnings} warnings: {log}");
}
