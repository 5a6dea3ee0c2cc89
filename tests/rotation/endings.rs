//! Tokens that Slack may have revoked early.

use std::sync::Mutex;

use slack_installs::rotation::{CallError, Error, Token};
use slack_installs::store::Credential;
use slack_installs::testing::{Fault, GracePolicy, Rotation};

use super::Posting;
use super::support::rotation::{ALPHA, BotToken as _, HOUR, Stage, alpha, secs};

#[tokio::test(start_paused = true)]
async fn a_pair_that_may_be_the_loser_is_asked_about_before_it_is_handed_out() {
    for policy in GracePolicy::ALL {
        let stage = Stage::installed_with(Rotation {
            grace: secs(300),
            policy,
            ..Rotation::default()
        })
        .await;
        stage.expire();
        // Two pairs are issued, and both responses are lost.
        stage.inject(Fault::lost().after_effect().times(2));
        let rotator = stage.rotator();
        let mut last = None;
        for _ in 0..60 {
            let outcome = rotator.bot_token().await;
            if let Ok(token) = &outcome {
                let is_live = stage.fake.is_live(token.access_token.expose());
                assert!(is_live, "{policy:?}");
            }
            last = Some(outcome);
            tokio::time::sleep(secs(1)).await;
        }
        let last = last.expect("it was asked");
        match policy {
            // The pair that is alive was lost with its response.
            GracePolicy::FirstOnly => {
                assert_matches!(last, Err(Error::ReinstallNeeded { .. }));
            }
            _ => drop(last.expect("a token")),
        }
        // The token that bought the dead pair is sent once more, and its pair is dead too.
        let questions = if policy == GracePolicy::FirstOnly {
            2
        } else {
            1
        };
        assert_eq!(stage.fake.calls("auth.test"), questions, "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pair_that_came_late_is_used_when_the_one_that_was_saved_is_the_loser() {
    let stage = Stage::installed_with(Rotation {
        grace: secs(300),
        policy: GracePolicy::FirstOnly,
        ..Rotation::default()
    })
    .await;
    stage.expire();
    // The live pair arrives after its callers' lease has lapsed, and after another process has
    // saved the dead pair.
    let late = secs(16);
    stage.inject(Fault::delay(late).after_effect());
    stage.inject(Fault::lost());
    let (one, two) = (stage.rotator(), stage.rotator());
    let error = one.bot_token().await;
    error.expect_err("there is no response yet");
    let mut last = None;
    for _ in 0..60 {
        let outcome = two.bot_token().await;
        match &outcome {
            Ok(token) => assert!(stage.fake.is_live(token.access_token.expose())),
            Err(error) => assert_matches!(error, Error::TryAgain { .. }),
        }
        last = Some(outcome);
        tokio::time::sleep(secs(1)).await;
    }
    let last = last.expect("it was asked");
    last.expect("rescued");
}

/// What the application does with a token.
async fn post(stage: &Stage, used: &Mutex<Vec<String>>, token: Token) -> Result<(), Posting> {
    let token = token.access_token.expose().to_owned();
    let is_live = stage.fake.is_live(&token);
    used.lock().expect("the lock is not poisoned").push(token);
    if is_live {
        Ok(())
    } else {
        Err(Posting::Revoked)
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_meets_token_revoked_goes_on_with_the_next_token() {
    let stage = Stage::installed().await;
    stage.fake.advance(HOUR);
    let old = stage.bot_chain().await.grant.access_token;
    let revoked = stage.slack().auth_revoke(&old).await;
    revoked.expect("the fake revokes");
    let used = Mutex::default();
    let rotator = stage.rotator();
    let operation = |token| post(&stage, &used, token);
    let posted = rotator.call(&alpha(), Credential::Bot, operation).await;
    posted.expect("posted");
    let used = used.into_inner().expect("the lock is not poisoned");
    assert_eq!(used.len(), 2);
    assert_eq!(used[0], old.expose());
    assert_eq!(stage.refreshes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_calls_a_token_revoked_that_is_alive_gets_its_error_back_and_costs_no_refresh()
{
    let stage = Stage::installed().await;
    stage.fake.advance(HOUR);
    let rotator = stage.rotator();
    for _ in 0..10 {
        let operation = |_| async { Err::<(), _>(Posting::Revoked) };
        let posted = rotator.call(&alpha(), Credential::Bot, operation).await;
        assert_matches!(posted, Err(CallError::Operation(Posting::Revoked)));
    }
    assert_eq!(stage.refreshes(), 0);
    assert_eq!(stage.fake.calls("auth.test"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_calls_a_token_revoked_while_slack_cannot_be_asked_gets_its_error_back() {
    for trouble in [Fault::unavailable(), Fault::error("invalid_auth")] {
        let stage = Stage::installed().await;
        stage.fake.advance(HOUR);
        stage.fake.inject("auth.test", trouble);
        let operation = |_| async { Err::<(), _>(Posting::Revoked) };
        let rotator = stage.rotator();
        let posted = rotator.call(&alpha(), Credential::Bot, operation).await;
        assert_matches!(posted, Err(CallError::Operation(Posting::Revoked)));
        assert_eq!(stage.refreshes(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_to_a_workspace_that_is_gone_says_that_the_app_must_be_installed_again() {
    let stage = Stage::installed().await;
    stage.fake.advance(HOUR);
    assert!(stage.fake.uninstall(ALPHA));
    let rotator = stage.rotator();
    let operation = |_| async { Err::<(), _>(Posting::Revoked) };
    let posted = rotator.call(&alpha(), Credential::Bot, operation).await;
    assert_matches!(posted, Err(CallError::Token(Error::ReinstallNeeded { .. })));
}
