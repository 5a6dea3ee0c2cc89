//! Callers whose token Slack has ended, while it is not certain what became of the chain.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use slack_installs::rotation::CallError;
use slack_installs::store::Credential;
use slack_installs::testing::Fault;
use slack_installs::testing::Faults;

use super::Posting;
use super::support::rotation::{HOUR, REFRESH, Stage, alpha};

#[tokio::test(start_paused = true)]
async fn a_revoked_token_is_the_callers_own_error_while_its_chain_cannot_be_read() {
    let stage = Stage::installed().await;
    stage.fake.advance(HOUR);
    let old = stage.bot_chain().await.grant.access_token;
    stage.slack().auth_revoke(&old).await.expect("revoked");
    let tries = AtomicUsize::new(0);
    let operation = |_| async {
        tries.fetch_add(1, Ordering::SeqCst);
        let away = Faults {
            lost_reads: 1,
            ..Faults::none()
        };
        stage.store.backend().set_faults(away);
        Err::<(), _>(Posting::Revoked)
    };
    let rotator = stage.rotator();
    let posted = rotator.call(&alpha(), Credential::Bot, operation).await;
    assert!(
        matches!(posted, Err(CallError::Operation(Posting::Revoked))),
        "{posted:?}"
    );
    assert_eq!(tries.load(Ordering::SeqCst), 1);
    assert_eq!(stage.fake.calls("auth.test"), 0);
}

/// Slack has said a moment ago that the token is over, and the record does not know it yet.
#[tokio::test(start_paused = true)]
async fn a_token_that_slack_called_over_a_moment_ago_is_replaced_for_a_caller_who_says_so_too() {
    let stage = Stage::installed().await;
    stage.fake.advance(HOUR);
    let old = stage.bot_chain().await.grant.access_token;
    let rotator = stage.rotator();
    let (tenant, tries) = (alpha(), AtomicUsize::new(0));
    let call = rotator.call(&tenant, Credential::Bot, |token| {
        let is_first = tries.fetch_add(1, Ordering::SeqCst) == 0;
        let (stage, rotator, old) = (&stage, &rotator, &old);
        async move {
            if !is_first {
                return Ok(token.access_token.expose().to_owned());
            }
            stage.slack().auth_revoke(old).await.expect("revoked");
            stage.change(|chain| chain.attempts = 2).await;
            let fault = Fault::error("service_unavailable");
            stage.fake.inject(REFRESH, fault);
            let asked = rotator.token_for(&alpha(), Credential::Bot).await;
            assert!(asked.is_err(), "{asked:?}");
            assert_eq!(stage.fake.calls("auth.test"), 1);
            // Until the next try.
            tokio::time::sleep(Duration::from_secs(2)).await;
            Err(Posting::Revoked)
        }
    });
    let used = call.await.expect("posted with the next token");
    let stored = stage.bot_chain().await;
    assert_eq!(used, stored.grant.access_token.expose());
    assert_eq!(stored.chain.generation, 1);
    assert_eq!(tries.load(Ordering::SeqCst), 2);
}
