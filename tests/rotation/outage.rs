//! The pauses in an outage of Slack or of the database. A call of unknown outcome is repeated
//! within the grace.

use std::time::{Duration, SystemTime};

use slack_installs::rotation::Error;
use slack_installs::testing::{Fault, GracePolicy};
use tokio::time::Instant;

use super::support::hooked_chains::Way;
use super::support::rotation::{BotToken as _, REFRESH, Stage, secs, settle, spawn_worker};

/// What the tests take as Slack's grace.
const GRACE: Duration = Duration::from_secs(30);

const SOON: Duration = Duration::from_secs(11);

/// Returns when Slack got the calls that refresh a token.
fn times(stage: &Stage) -> Vec<SystemTime> {
    let calls = stage.fake.call_log();
    let refreshes = calls.iter().filter(|call| call.method == REFRESH);
    // The install exchanged its code with the same method.
    refreshes.map(|call| call.at).skip(1).collect()
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_a_call_of_unknown_outcome_is_repeated_within_the_grace() {
    for failures in [0, 3, 5, 6, 9, 12, 30] {
        for seed in 0..4 {
            // Slack carries out the last calls of the outage, and their responses are lost, at once
            // or after the timeout of 6 s.
            for wait in [0, 7] {
                let stage = Stage::installed_under(GracePolicy::AllLive).await;
                stage.expire();
                stage.change(|chain| chain.failures = failures).await;
                // From the seventh attempt on, an attempt makes one call.
                let calls = if failures < 6 { 2 } else { 1 };
                let lost = Fault::lost().delayed(secs(wait));
                stage.inject(lost.after_effect().times(calls));
                let rotator = stage.rotator().with_seed(seed);
                let asked = rotator.bot_token().await;
                let now = stage.fake.clock().now();
                assert_matches!(asked, Err(Error::TryAgain { at, .. }) if at <= now + SOON);
                assert_eq!(stage.refreshes(), calls);
                let chain = stage.bot_chain().await.chain;
                assert!(chain.due_at.expect("a worker tries") <= now + SOON);
                let worker = spawn_worker(&rotator);
                tokio::time::sleep(GRACE).await;
                settle().await;
                let times = times(&stage);
                assert!(times[calls] < times[0] + GRACE, "{failures}: {times:?}");
                let chain = stage.bot_chain().await.chain;
                assert_eq!((chain.generation, chain.attempts), (1, 0), "{failures}");
                worker.abort();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_whose_outcome_is_known_still_waits_longer_each_time() {
    let stage = Stage::installed().await;
    stage.expire();
    stage.change(|chain| chain.failures = 6).await;
    stage.inject(Fault::error("service_unavailable"));
    let now = stage.fake.clock().now();
    let asked = stage.rotator().bot_token().await;
    assert_matches!(asked, Err(Error::TryAgain { at, .. }) if at >= now + secs(30));
}

/// Slack carries out both calls of a refresh, and their responses are lost. From the second call
/// on, the database does not respond for this long. A worker of the same process then repeats the
/// call.
async fn is_repeated_although_the_database_is_away_for(away: Duration) {
    let stage = Stage::installed_under(GracePolicy::AllLive).await;
    stage.expire();
    stage.inject(Fault::lost().after_effect().times(2));
    let back = Instant::now() + away;
    let rotator = stage.rotator_with_updates(move |number| {
        if number > 2 && Instant::now() < back {
            Way::Failed
        } else {
            Way::Done
        }
    });
    let worker = spawn_worker(&rotator);
    tokio::time::sleep(secs(40)).await;
    let times = times(&stage);
    assert!(times[2] < times[0] + GRACE, "{away:?}: {times:?}");
    assert_eq!(stage.bot_chain().await.chain.generation, 1);
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn after_a_fault_of_the_database_a_call_of_unknown_outcome_is_repeated_within_the_grace() {
    for away in [1, 5, 9, 12, 14, 16, 18, 20] {
        is_repeated_although_the_database_is_away_for(secs(away)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn while_a_chain_waits_another_processs_lost_call_is_repeated_within_the_grace() {
    let stage = Stage::installed_under(GracePolicy::AllLive).await;
    stage.expire();
    // This process waits for about a minute.
    stage.inject(Fault::error("service_unavailable"));
    stage.change(|chain| chain.failures = 6).await;
    let rotator = stage.rotator();
    let asked = rotator.bot_token().await;
    assert_matches!(asked, Err(Error::TryAgain { .. }));
    let worker = spawn_worker(&rotator);
    // An operator's process refreshes the token at once, and dies before it saves the pair.
    stage.change(|chain| chain.retry_at = None).await;
    let dying = stage.dying(1);
    drop(dying.bot_token().await);
    tokio::time::sleep(GRACE).await;
    let times = times(&stage);
    assert!(times[2] < times[1] + GRACE, "{times:?}");
    assert_eq!(stage.bot_chain().await.chain.generation, 1);
    worker.abort();
}
