//! The shutdown of a rotator.

use slack_installs::rotation::Error;
use slack_installs::testing::Fault;
use slack_installs::testing::Faults;

use super::support::rotation::{BotToken as _, Stage, millis, secs, spawn_caller};

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_a_pair_that_the_database_does_not_take_yet() {
    let stage = Stage::installed().await;
    stage.expire();
    stage.inject(Fault::delay(secs(1)));
    let rotator = stage.rotator();
    let waiting = spawn_caller(&rotator.within(secs(10)));
    tokio::time::sleep(millis(500)).await;
    let down = Faults {
        lost_commits: 1,
        lost_reads: 1,
        ..Faults::none()
    };
    stage.store.backend().set_faults(down);
    let error = waiting
        .await
        .expect("no panic")
        .expect_err("no token is handed out before it is saved");
    assert_matches!(error, Error::Busy);
    tokio::time::sleep(secs(50)).await;
    stage.store.backend().set_faults(Faults::none());
    assert!(
        rotator.shutdown(secs(30)).await,
        "shutdown waits for the save"
    );
    assert_eq!(stage.refreshes(), 1);
    let chain = stage.bot_chain().await;
    assert_eq!(chain.chain.generation, 1);
    assert!(stage.fake.is_live(chain.grant.access_token.expose()));
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_what_has_begun_and_begins_nothing() {
    let stage = Stage::installed().await;
    stage.expire();
    stage.inject(Fault::delay(secs(4)));
    let rotator = stage.rotator();
    let caller = spawn_caller(&rotator);
    tokio::time::sleep(secs(1)).await;
    assert!(
        !rotator.shutdown(secs(1)).await,
        "the task is still running"
    );
    assert!(rotator.shutdown(secs(30)).await);
    caller
        .await
        .expect("no panic")
        .expect("the caller got its token");
    assert_eq!(stage.bot_chain().await.chain.generation, 1);
    stage.expire();
    let error = rotator.bot_token().await.expect_err("closed");
    assert_matches!(error, Error::Interrupted);
    assert_eq!(stage.refreshes(), 1);
}
