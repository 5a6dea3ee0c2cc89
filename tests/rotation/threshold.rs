//! The app decides how long before its expiry a token is refreshed.

use std::time::Duration;

use slack_installs::RotationConfig;
use slack_installs::rotation::RefreshThreshold;
use slack_installs::store::Credential;

use super::support::rotation::{HOUR, Stage, alpha, secs, settle, spawn_worker};

const MINUTE: Duration = secs(60);

fn config(stage: &Stage, threshold: Duration) -> RotationConfig {
    RotationConfig {
        threshold: RefreshThreshold::new(threshold).expect("within the bounds"),
        ..stage.config()
    }
}

/// Slack's tokens live for 12 hours.
#[tokio::test(start_paused = true)]
async fn a_use_refreshes_a_token_from_the_apps_own_threshold_on() {
    for (threshold, fresh, due) in [
        (10 * MINUTE, 12 * HOUR - 13 * MINUTE, 12 * HOUR - 7 * MINUTE),
        (HOUR, 12 * HOUR - 76 * MINUTE, 12 * HOUR - 44 * MINUTE),
        (4 * HOUR, 7 * HOUR - MINUTE, 9 * HOUR + MINUTE),
    ] {
        for fetches in [false, true] {
            let stage = Stage::installed().await;
            let rotator = stage.rotator_with(config(&stage, threshold));
            let issued_at = stage.bot_chain().await.chain.issued_at;
            for (age, refreshes) in [(fresh, 0), (due, 1)] {
                let now = stage.fake.clock().now();
                let left = (issued_at + age).duration_since(now);
                stage.fake.advance(left.expect("later"));
                if fetches {
                    let refreshed = rotator.refreshed(stage.fetched().await).await;
                    assert!(refreshed.installation.bot.is_some());
                } else {
                    let token = rotator.token_for(&alpha(), Credential::Bot).await;
                    token.expect("the token is still valid");
                }
                settle().await;
                assert_eq!(stage.refreshes(), refreshes, "{threshold:?} {age:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_refreshes_and_schedules_by_the_apps_own_threshold() {
    for threshold in [10 * MINUTE, HOUR, 4 * HOUR] {
        let stage = Stage::installed().await;
        let worker = spawn_worker(&stage.rotator_with(config(&stage, threshold)));
        // The store has scheduled the first pair by the default.
        let first = threshold.min(2 * HOUR);
        tokio::time::sleep(12 * HOUR - first * 5 / 4 - MINUTE).await;
        assert_eq!(stage.refreshes(), 0, "{threshold:?}");
        tokio::time::sleep(first / 2 + 2 * MINUTE).await;
        assert_eq!(stage.refreshes(), 1, "{threshold:?}");
        let chain = stage.bot_chain().await.chain;
        let early = chain.expires_at.expect("it rotates") - threshold * 5 / 4;
        let due_at = chain.due_at.expect("scheduled");
        let after = due_at.duration_since(early).expect("not before");
        assert!(after <= threshold / 2, "{threshold:?}: {after:?}");
        tokio::time::sleep(12 * HOUR - threshold * 5 / 4 - 10 * MINUTE).await;
        assert_eq!(stage.refreshes(), 1, "{threshold:?}");
        tokio::time::sleep(threshold / 2 + 20 * MINUTE).await;
        assert_eq!(stage.refreshes(), 2, "{threshold:?}");
        worker.abort();
    }
}
