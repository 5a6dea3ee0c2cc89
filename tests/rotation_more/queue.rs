//! What a worker finds behind rows that nobody can help for a while.

use std::time::Duration;

use slack_installs::rotation::WorkerConfig;
use slack_installs::testing::Rotation;

use super::support::rotation::{ALPHA, Stage};
use super::{Way, change, fleet, rotator_over};

/// A whole page of chains that do not open is left alone for a minute.
#[tokio::test(start_paused = true)]
async fn a_page_that_is_left_alone_does_not_hide_the_next_one() {
    let stage = Stage::new(Rotation::default()).await;
    fleet(&stage, 100).await;
    stage.expire();
    stage.install(ALPHA, "chat:write", "").await;
    let rotator = rotator_over(&stage, |number| match number {
        0..100 => Way::Unreadable,
        _ => Way::Done,
    });
    let worker = tokio::spawn(async move {
        let config = WorkerConfig {
            rate: 100,
            ..WorkerConfig::default()
        };
        rotator.work(config).await;
    });
    tokio::time::sleep(Duration::from_secs(10)).await;
    let now = stage.fake.clock().now();
    change(&stage, |chain| {
        chain.expires_at = Some(now);
        chain.due_at = Some(now);
    })
    .await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(stage.bot_chain().await.chain.generation, 1);
    worker.abort();
}
