//! Callers whose operation reports that the token has expired or was revoked.

use std::sync::atomic::{AtomicUsize, Ordering};

use slack_installs::rotation::{CallError, Error};
use slack_installs::store::{Credential, RotationStore as _};
use slack_installs::testing::Fault;
use tokio::time::Instant;

use super::Posting;
use super::support::hooked_chains::Way;
use super::support::rotation::{ALPHA, BotToken as _, HOUR, Stage, alpha, secs};

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_slacks_word_no_longer_than_its_callers_patience() {
    for (patience, waits) in [(2, 2), (20, 6)] {
        let stage = Stage::installed().await;
        stage.fake.advance(HOUR);
        let slow = Fault::delay(secs(9)).always();
        stage.fake.inject("auth.test", slow);
        let rotator = stage.rotator().within(secs(patience));
        let begun = Instant::now();
        let tries = AtomicUsize::new(0);
        let operation = |_| async {
            tries.fetch_add(1, Ordering::SeqCst);
            Err::<(), _>(Posting::Revoked)
        };
        let posted = rotator.call(&alpha(), Credential::Bot, operation).await;
        assert_matches!(posted, Err(CallError::Operation(Posting::Revoked)));
        assert_eq!(
            tries.load(Ordering::SeqCst),
            1,
            "the token is not known to be revoked"
        );
        assert_eq!(begun.elapsed().as_secs(), waits);
        assert_eq!(stage.refreshes(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_token_was_replaced_meanwhile_goes_on_without_asking_slack() {
    // The token was replaced by a refresh, or by another installation with the same generation.
    for is_reinstalled in [false, true] {
        let stage = Stage::installed().await;
        stage.fake.advance(HOUR);
        let (rotator, tries) = (stage.rotator(), AtomicUsize::new(0));
        let tenant = alpha();
        let call = rotator.call(&tenant, Credential::Bot, |token| {
            let is_first = tries.fetch_add(1, Ordering::SeqCst) == 0;
            let stage = &stage;
            async move {
                if !is_first {
                    return Ok(token.access_token.expose().to_owned());
                }
                if is_reinstalled {
                    stage.install(ALPHA, "chat:write", "").await;
                } else {
                    stage.expire();
                    let other = stage.rotator();
                    let other = other.bot_token().await;
                    other.expect("refreshed");
                }
                Err(Posting::Revoked)
            }
        });
        let used = call.await.expect("posted");
        let stored = stage.bot_chain().await;
        assert_eq!(used, stored.grant.access_token.expose());
        assert_eq!(stage.fake.calls("auth.test"), 0);
        assert_eq!(stage.refreshes(), usize::from(!is_reinstalled));
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_whose_end_cannot_be_written_is_the_callers_own_error() {
    let stage = Stage::installed().await;
    stage.fake.advance(HOUR);
    let old = stage.bot_chain().await.grant.access_token;
    stage.slack().auth_revoke(&old).await.expect("revoked");
    let rotator = stage.rotator_with_updates(|_| Way::Failed);
    let tries = AtomicUsize::new(0);
    let operation = |_| async {
        tries.fetch_add(1, Ordering::SeqCst);
        Err::<(), _>(Posting::Revoked)
    };
    let posted = rotator.call(&alpha(), Credential::Bot, operation).await;
    assert_matches!(posted, Err(CallError::Operation(Posting::Revoked)));
    assert_eq!(tries.load(Ordering::SeqCst), 1, "the token is the same");
    assert_eq!(stage.refreshes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_slack_has_ended_is_due_for_every_worker() {
    let stage = Stage::installed().await;
    stage.fake.advance(HOUR);
    let old = stage.bot_chain().await.grant.access_token;
    stage.slack().auth_revoke(&old).await.expect("revoked");
    // The rotator is shutting down, and begins no refresh.
    let rotator = stage.rotator();
    assert!(rotator.shutdown(secs(1)).await);
    let operation = |_| async { Err::<(), _>(Posting::Revoked) };
    let posted = rotator.call(&alpha(), Credential::Bot, operation).await;
    assert_matches!(posted, Err(CallError::Token(Error::Interrupted)));
    let due = stage.store.due(stage.fake.clock().now(), None, 10).await;
    assert_eq!(due.expect("available").0.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_a_caller_forces_pauses_for_five_minutes_after_each_pair() {
    let stage = Stage::installed().await;
    stage.fake.advance(HOUR);
    let rotator = stage.rotator();
    let operation = |_| async { Err::<(), _>(Posting::Expired) };
    let call = async || rotator.call(&alpha(), Credential::Bot, operation).await;
    let first = call().await;
    assert_matches!(first, Err(CallError::Operation(Posting::Expired)));
    assert_eq!(stage.refreshes(), 1);
    tokio::time::sleep(secs(298)).await;
    let early = call().await;
    let Err(CallError::Token(Error::TryAgain { code, .. })) = early else {
        panic!("{early:?}");
    };
    assert_eq!(code.as_str(), "refreshed_just_now");
    assert_eq!(stage.refreshes(), 1);
    tokio::time::sleep(secs(3)).await;
    drop(call().await);
    assert_eq!(stage.refreshes(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_forced_refresh_whose_process_died_is_due_when_its_lease_has_lapsed() {
    let stage = Stage::installed().await;
    stage.fake.advance(HOUR);
    let rotator = stage.dying(1);
    let operation = |_| async { Err::<(), _>(Posting::Expired) };
    let posted = rotator.call(&alpha(), Credential::Bot, operation).await;
    assert_matches!(posted, Err(CallError::Token(Error::Interrupted)));
    for (seconds, expected) in [(14, 0), (15, 1)] {
        let then = stage.fake.clock().now() + secs(seconds);
        let due = stage.store.due(then, None, 10).await;
        assert_eq!(
            due.expect("available").0.len(),
            expected,
            "{seconds} s later"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_meets_token_expired_gets_one_refresh_and_one_more_try() {
    let stage = Stage::installed().await;
    stage.fake.advance(HOUR);
    let old = stage.bot_chain().await;
    let tries = AtomicUsize::new(0);
    let rotator = stage.rotator();
    let posted = rotator
        .call(&alpha(), Credential::Bot, |token| {
            tries.fetch_add(1, Ordering::SeqCst);
            let is_old = token.access_token.expose() == old.grant.access_token.expose();
            async move {
                if is_old {
                    Err(Posting::Expired)
                } else {
                    Ok(token.expires_at)
                }
            }
        })
        .await;
    assert!(posted.is_ok_and(|expires_at| expires_at.is_some()));
    assert_eq!((tries.load(Ordering::SeqCst), stage.refreshes()), (2, 1));
    // A refresh does not help an application whose error has another reason.
    let failed = rotator
        .call(&alpha(), Credential::Bot, |_| async {
            Err::<(), _>(Posting::Other)
        })
        .await;
    assert_matches!(failed, Err(CallError::Operation(Posting::Other)));
    assert_eq!(stage.refreshes(), 1);
}
