//! An operator's hold that begins or ends during a refresh.

use slack_installs::Hold;
use slack_installs::rotation::Error;
use slack_installs::store::LifecycleStore as _;
use slack_installs::testing::Fault;
use tokio::task::JoinSet;

use super::support::hooked_chains::Way;
use super::support::rotation::{BotToken as _, REFRESH, Stage, alpha, millis, secs, spawn_caller};

async fn hold(stage: &Stage, is_on: bool) {
    let hold = Hold {
        is_on,
        reason: "unpaid".to_owned(),
        at: stage.fake.clock().now(),
    };
    let held = stage.store.hold(&alpha(), &hold).await;
    assert!(held.expect("available"), "it is installed");
}

async fn is_on_hold(stage: &Stage) -> bool {
    let fetched = stage.fetched().await;
    assert_eq!(fetched.is_on_hold(), stage.bot_chain().await.is_on_hold);
    fetched.is_on_hold()
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_is_put_during_a_refresh_is_kept_and_whoever_joined_gets_nothing() {
    let stage = Stage::installed().await;
    stage.expire();
    let (rotator, held) = stage.held();
    let mut callers = JoinSet::new();
    for _ in 0..5 {
        let rotator = rotator.clone();
        callers.spawn(async move { rotator.bot_token().await });
    }
    held.answered().await;
    hold(&stage, true).await;
    held.release();
    for outcome in callers.join_all().await {
        assert_matches!(outcome, Err(Error::OnHold));
    }
    assert!(is_on_hold(&stage).await);
    let chain = stage.bot_chain().await;
    assert_eq!(
        chain.chain.generation, 1,
        "the pair is saved during the hold too"
    );
    let asked = rotator.bot_token().await;
    assert_matches!(asked, Err(Error::OnHold));
    hold(&stage, false).await;
    let token = rotator.bot_token().await;
    let token = token.expect("the hold has ended");
    let saved = chain.grant.access_token.expose();
    assert_eq!(token.access_token.expose(), saved);
    assert_eq!(stage.refreshes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_is_put_before_a_refresh_makes_no_call() {
    let stage = Stage::installed().await;
    stage.expire();
    hold(&stage, true).await;
    let asked = stage.rotator().bot_token().await;
    assert_matches!(asked, Err(Error::OnHold));
    assert_eq!(stage.refreshes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_ends_after_the_save_is_not_told_to_those_who_wait() {
    let stage = Stage::installed().await;
    stage.expire();
    let rotator = stage.rotator_with_updates(|number| match number {
        1 => Way::Slow(secs(2)),
        _ => Way::Done,
    });
    let slow = Fault::delay(secs(1)).after_effect();
    stage.fake.inject(REFRESH, slow);
    let caller = spawn_caller(&rotator);
    tokio::time::sleep(millis(500)).await;
    hold(&stage, true).await;
    tokio::time::sleep(millis(1500)).await;
    let saved = stage.bot_chain().await;
    assert_eq!(saved.chain.generation, 1, "saved during the hold");
    hold(&stage, false).await;
    let token = caller.await.expect("no panic").expect("a token");
    assert_eq!(
        token.access_token.expose(),
        saved.grant.access_token.expose()
    );
}

/// The old token is still valid, and Slack confirms it. But the tenant is already on hold.
#[tokio::test(start_paused = true)]
async fn a_hold_that_is_put_during_a_refresh_that_fails_gives_nobody_the_old_token() {
    for is_held in [false, true] {
        let stage = Stage::installed().await;
        stage.change(|chain| chain.attempts = 2).await;
        assert!(stage.bot_chain().await.chain.is_suspect());
        stage
            .fake
            .inject(REFRESH, Fault::error("service_unavailable").always());
        let (rotator, held) = stage.held();
        let caller = spawn_caller(&rotator);
        held.answered().await;
        if is_held {
            hold(&stage, true).await;
        }
        held.release();
        let outcome = caller.await.expect("no panic");
        if is_held {
            assert_matches!(outcome, Err(Error::OnHold))
        } else {
            drop(outcome.expect("Slack reports the old token as alive"))
        }
    }
}
