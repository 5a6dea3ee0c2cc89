//! The pauses in an outage of Slack. A call of unknown outcome is repeated within the grace.

use std::time::Duration;

use slack_installs::rotation::Error;
use slack_installs::testing::{Fault, GracePolicy};

use super::support::rotation::{BotToken as _, Stage, secs, spawn_worker};

/// Less than the 30 s that the tests take as Slack's grace.
const SOON: Duration = Duration::from_secs(16);

#[tokio::test(start_paused = true)]
async fn after_an_outage_a_call_of_unknown_outcome_is_repeated_within_the_grace() {
    for failures in [0, 3, 6, 9, 12, 30] {
        let stage = Stage::installed_under(GracePolicy::AllLive).await;
        stage.expire();
        stage.change(|chain| chain.failures = failures).await;
        // Slack carries out the last calls of the outage, and their responses are lost. From the
        // sixth failure on, an attempt makes one call, so that an outage costs few calls.
        let calls = if failures < 6 { 2 } else { 1 };
        stage.inject(Fault::lost().after_effect().times(calls));
        let rotator = stage.rotator();
        let asked = rotator.bot_token().await;
        let now = stage.fake.clock().now();
        assert_matches!(asked, Err(Error::TryAgain { at, .. }) if at <= now + SOON);
        assert_eq!(stage.refreshes(), calls);
        let chain = stage.bot_chain().await.chain;
        assert!(chain.due_at.expect("a worker tries") <= stage.fake.clock().now() + SOON);
        let worker = spawn_worker(&rotator);
        tokio::time::sleep(SOON + secs(4)).await;
        let chain = stage.bot_chain().await.chain;
        assert_eq!((chain.generation, chain.attempts), (1, 0), "{failures}");
        worker.abort();
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
