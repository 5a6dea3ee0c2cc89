//! An operator's hold that begins, or ends, while a refresh is under way.

use std::time::Duration;

use slack_installs::rotation::Error;
use slack_installs::store::{Credential, LifecycleStore as _};
use slack_installs::testing::Fault;
use slack_installs::{Hold, InstallationStore as _};
use tokio::task::JoinSet;

use super::support::rotation::{Stage, alpha};
use super::{Way, change, installed, rotator_over};

async fn hold(stage: &Stage, is_on: bool) {
    let hold = Hold {
        is_on,
        reason: "unpaid".to_owned(),
        at: stage.fake.clock().now(),
    };
    let held = stage.store.hold(&alpha(), &hold).await;
    assert!(held.expect("answers"), "it is installed");
}

async fn is_on_hold(stage: &Stage) -> bool {
    let fetched = stage.store.fetch(&alpha(), None).await;
    let fetched = fetched.expect("answers").expect("installed");
    assert_eq!(fetched.is_on_hold(), stage.bot_chain().await.is_on_hold);
    fetched.is_on_hold()
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_is_put_during_a_refresh_is_kept_and_whoever_joined_gets_nothing() {
    let stage = installed().await;
    stage.expire();
    let (rotator, held) = stage.held();
    let mut callers = JoinSet::new();
    for _ in 0..5 {
        let rotator = rotator.clone();
        callers.spawn(async move { rotator.token_for(&alpha(), Credential::Bot).await });
    }
    held.answered().await;
    hold(&stage, true).await;
    held.release();
    for outcome in callers.join_all().await {
        assert!(matches!(outcome, Err(Error::OnHold)), "{outcome:?}");
    }
    assert!(is_on_hold(&stage).await);
    let chain = stage.bot_chain().await;
    assert_eq!(chain.chain.generation, 1, "the pair is saved all the same");
    let asked = rotator.token_for(&alpha(), Credential::Bot).await;
    assert!(matches!(asked, Err(Error::OnHold)), "{asked:?}");
    hold(&stage, false).await;
    let token = rotator.token_for(&alpha(), Credential::Bot).await;
    let token = token.expect("the hold has ended");
    let saved = chain.grant.access_token.expose();
    assert_eq!(token.access_token.expose(), saved);
    assert_eq!(stage.refreshes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_is_put_before_a_refresh_makes_no_call() {
    let stage = installed().await;
    stage.expire();
    hold(&stage, true).await;
    let asked = stage.rotator().token_for(&alpha(), Credential::Bot).await;
    assert!(matches!(asked, Err(Error::OnHold)), "{asked:?}");
    assert_eq!(stage.refreshes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_ends_after_the_save_is_not_told_to_those_who_wait() {
    let stage = installed().await;
    stage.expire();
    let rotator = rotator_over(&stage, |number| match number {
        1 => Way::Slow(Duration::from_secs(2)),
        _ => Way::Done,
    });
    let slow = Fault::delay(Duration::from_secs(1)).after_effect();
    stage.fake.inject(super::REFRESH, slow);
    let caller = tokio::spawn(async move { rotator.token_for(&alpha(), Credential::Bot).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    hold(&stage, true).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let saved = stage.bot_chain().await;
    assert_eq!(saved.chain.generation, 1, "saved during the hold");
    hold(&stage, false).await;
    let token = caller.await.expect("no panic").expect("a token");
    assert_eq!(
        token.access_token.expose(),
        saved.grant.access_token.expose()
    );
}

/// The old token still serves, and Slack says so; but the tenant is on hold by then.
#[tokio::test(start_paused = true)]
async fn a_hold_that_is_put_during_a_refresh_that_fails_gives_nobody_the_old_token() {
    for is_held in [false, true] {
        let stage = installed().await;
        change(&stage, |chain| chain.attempts = 2).await;
        assert!(stage.bot_chain().await.chain.is_suspect());
        stage
            .fake
            .inject(super::REFRESH, Fault::error("service_unavailable").always());
        let (rotator, held) = stage.held();
        let caller = tokio::spawn({
            let rotator = rotator.clone();
            async move { rotator.token_for(&alpha(), Credential::Bot).await }
        });
        held.answered().await;
        if is_held {
            hold(&stage, true).await;
        }
        held.release();
        let outcome = caller.await.expect("no panic");
        match is_held {
            true => assert!(matches!(outcome, Err(Error::OnHold)), "{outcome:?}"),
            false => drop(outcome.expect("Slack says that the old token lives")),
        }
    }
}
