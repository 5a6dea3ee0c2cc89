//! Responses that are lost or late, and tasks that die.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use slack_installs::rotation::Error;
use slack_installs::testing::{Fault, GracePolicy};

use super::support::hooked_transport::Rewritten;
use super::support::rotation::{BotToken as _, REFRESH, Stage, refresh_token, secs};

#[tokio::test(start_paused = true)]
async fn a_refresh_that_panics_frees_the_chain() {
    let stage = Stage::installed().await;
    stage.expire();
    let rotator = stage.dying(1);
    let error = rotator.bot_token().await.expect_err("panicked");
    assert_matches!(error, Error::Interrupted);
    // The dead task's lease lapses, and the same refresh token is sent again.
    rotator.bot_token().await.expect("recovered");
    assert!(stage.bot_chain().await.chain.lease.is_none());
    assert_eq!(stage.refreshes(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_counts_as_a_lost_answer() {
    let stage = Stage::installed().await;
    stage.expire();
    let calls = AtomicUsize::new(0);
    let transport = Rewritten::over(stage.fake.transport(), move |_: &str, body: Bytes| {
        assert!(
            calls.fetch_add(1, Ordering::SeqCst) > 0,
            "on purpose: the first call panics"
        );
        body
    });
    let rotator = stage.rotator_over(stage.config(), transport);
    rotator
        .bot_token()
        .await
        .expect("a second request succeeds");
    assert_eq!(stage.refreshes(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_for_once_more_with_the_same_refresh_token() {
    for policy in GracePolicy::ALL {
        let stage = Stage::installed_under(policy).await;
        let old = stage.bot_chain().await;
        stage.expire();
        stage.inject(Fault::lost().after_effect());
        let token = stage.rotator().bot_token().await;
        // The pair of the second call may be dead. The token is then sent once more.
        let is_dead = policy == GracePolicy::FirstOnly;
        assert_eq!(
            stage.fake.uses(refresh_token(&old).expose()),
            2 + usize::from(is_dead),
            "{policy:?}"
        );
        let generation = stage.bot_chain().await.chain.generation;
        assert_eq!(generation, 1 + u64::from(is_dead), "{policy:?}");
        // If only the first pair is alive, it was lost with its response.
        if !is_dead {
            let token = token.expect("a token");
            assert!(
                stage.fake.is_live(token.access_token.expose()),
                "{policy:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_too_late_for_the_lease_is_kept() {
    // Only the pair that was issued first is alive, and it arrives after ten seconds.
    let policy = GracePolicy::FirstOnly;
    let stage = Stage::installed_under(policy).await;
    stage.expire();
    let late = secs(10);
    stage.inject(Fault::delay(late).after_effect());
    let rotator = stage.rotator();
    let asked = rotator.bot_token().await;
    assert_matches!(asked, Ok(_) | Err(Error::TryAgain { .. }));
    assert!(
        rotator.shutdown(secs(30)).await,
        "shutdown waits for late responses"
    );
    let chain = stage.bot_chain().await;
    let mut tokens = chain.grant.refresh_token.iter().chain(&chain.alternates);
    assert!(tokens.any(|token| stage.fake.is_refreshable(token.expose())));
}

#[tokio::test(start_paused = true)]
async fn slacks_outage_is_waited_out_and_kills_nobody() {
    let stage = Stage::installed().await;
    stage.expire();
    stage.inject(Fault::unavailable().always());
    let rotator = stage.rotator();
    for _ in 0..200 {
        let error = rotator.bot_token().await.expect_err("down");
        assert_matches!(error, Error::TryAgain { .. });
        tokio::time::sleep(secs(10)).await;
    }
    let calls = stage.fake.calls(REFRESH);
    assert!(calls < 150, "{calls} calls in half an hour of outage");
    stage.fake.clear_faults();
    tokio::time::sleep(secs(120)).await;
    rotator.bot_token().await.expect("a token");
}
