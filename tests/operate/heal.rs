//! An app's own call that Slack refuses: the tenant is judged at once.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use slack_installs::rotation::{CallError, TokenRotator};
use slack_installs::slack::{self, Error};
use slack_installs::store::Credential;
use slack_installs::testing::Rotation;
use slack_installs::{RotationConfig, Scopes, SlackApp};
use tokio::time::Instant;

use super::*;
use crate::support::app::{REDIRECT, user_id};
use crate::support::script::{error, scripted};

/// Returns a rotator whose calls are healed, over this client.
fn healed(life: &Life, slack: &SlackClient) -> TokenRotator {
    let config = RotationConfig::new(credentials(&life.app.fake));
    let rotator = TokenRotator::new(config, slack.clone(), life.app.store.clone())
        .with_clock(life.app.fake.clock());
    operator_over(life, slack).heal_calls(rotator)
}

/// Makes the app's own call with a token of this tenant.
async fn call(
    life: &Life,
    rotator: &TokenRotator,
    tenant: &str,
    credential: Credential,
) -> Result<(), CallError<Error>> {
    let slack = &life.app.slack;
    let tenant = key(tenant);
    let called = rotator.call(&tenant, credential, |token| async move {
        slack.auth_test(&token.access_token).await.map(drop)
    });
    called.await
}

/// Makes a call that ends with this error code.
async fn refused(rotator: &TokenRotator, code: &str) {
    let tenant = key(ALPHA);
    let called = rotator.call(&tenant, Credential::Bot, |_| async {
        let (code, needed) = (slack::ErrorCode::new(code), Scopes::default());
        Err::<(), _>(Error::Api { code, needed })
    });
    called.await.expect_err("refused");
}

/// Waits, on the paused clock, until the judgements that run have ended. A judgement may refresh
/// tokens, so the rotator is shut down only then.
async fn settled(rotator: &TokenRotator) {
    tokio::time::sleep(Duration::from_secs(95)).await;
    assert!(rotator.shutdown(Duration::from_secs(1)).await);
}

fn asked(life: &Life) -> usize {
    life.app.fake.calls("auth.test")
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_left_is_purged_and_announced_by_the_apps_own_call() {
    for rotates in [false, true] {
        for is_bots in [true, false] {
            let life = Life::new().await;
            if rotates {
                life.app.fake.rotate_tokens(Rotation::default());
            }
            life.install(BEN).await;
            life.install(ADA).await;
            life.app.fake.uninstall(ALPHA);
            drop(life.app.fake.take_events());
            let rotator = healed(&life, &life.app.slack);
            let credential = if is_bots {
                Credential::Bot
            } else {
                // Not the user who installed the app last.
                Credential::User(user_id(BEN))
            };
            let case = format!("rotates: {rotates}, bot: {is_bots}");
            let called = call(&life, &rotator, ALPHA, credential).await;
            assert!(called.is_err(), "{case}");
            settled(&rotator).await;
            assert_eq!(life.slots(ALPHA).await, [""; 0], "{case}");
            let told = (
                ALPHA.to_owned(),
                "call: its tokens are dead".to_owned(),
                false,
            );
            assert_eq!(life.host.departures(), [told], "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_token_beside_one_that_lives_is_deleted_and_the_tenant_stays() {
    for user in [ADA, BEN] {
        let life = Life::new().await;
        life.install(BEN).await;
        life.install(ADA).await;
        assert!(life.app.fake.revoke_user(ALPHA, user));
        let rotator = healed(&life, &life.app.slack);
        let called = call(&life, &rotator, ALPHA, Credential::User(user_id(user))).await;
        assert_matches!(called, Err(CallError::Operation(_)));
        settled(&rotator).await;
        assert!(life.user_token(ALPHA, user).await.is_none(), "{user}");
        let other = if user == ADA { BEN } else { ADA };
        assert!(life.user_token(ALPHA, other).await.is_some(), "{user}");
        assert!(life.bot_token(ALPHA).await.is_some(), "{user}");
        assert_eq!(life.host.tenants(), [""; 0], "{user}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_slack_does_not_confirm_changes_nothing() {
    for said in ["", "invalid_auth", "token_expired", "some_new_error"] {
        for reported in ["account_inactive", "token_revoked"] {
            let life = Life::new().await;
            life.install(ADA).await;
            let before = all_rows(&*life.backend).await;
            let slack = scripted(&life.app.fake, move |_, _| async move {
                (!said.is_empty()).then(|| error(said))
            });
            let rotator = healed(&life, &slack);
            refused(&rotator, reported).await;
            settled(&rotator).await;
            assert_eq!(all_rows(&*life.backend).await, before, "{said}, {reported}");
            assert_eq!(life.host.tenants(), [""; 0], "{said}, {reported}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_for_another_reason_judges_nothing() {
    let life = Life::new().await;
    life.install(ADA).await;
    let rotator = healed(&life, &life.app.slack);
    let before = asked(&life);
    for code in [
        "invalid_auth",
        "channel_not_found",
        "missing_scope",
        "ratelimited",
    ] {
        refused(&rotator, code).await;
    }
    settled(&rotator).await;
    assert_eq!(asked(&life), before);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_calls_costs_one_judgement_per_interval_and_none_after_the_shutdown() {
    let life = Life::new().await;
    life.install_without_user(ADA).await;
    // Slack confirms nothing, so that the tenant stays and the calls go on.
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let slack = scripted(&life.app.fake, move |_, _| {
        counted.fetch_add(1, SeqCst);
        async { Some(error("invalid_auth")) }
    });
    let rotator = healed(&life, &slack);
    for round in 1..=3 {
        for pause in [299, 1] {
            for _ in 0..100 {
                refused(&rotator, "account_inactive").await;
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(Duration::from_secs(pause)).await;
            assert_eq!(count.load(SeqCst), round);
        }
    }
    settled(&rotator).await;
    refused(&rotator, "account_inactive").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(count.load(SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_call_does_not_wait_for_the_judgement_and_no_judgement_outlives_its_time() {
    let life = Life::new().await;
    life.install_without_user(ADA).await;
    let slack = scripted(&life.app.fake, |_, _| pending());
    let rotator = healed(&life, &slack);
    let begun = Instant::now();
    refused(&rotator, "account_inactive").await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    settled(&rotator).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_purges_ten_tenants_an_hour_by_its_calls() {
    let life = many().await;
    let rotator = healed(&life, &life.app.slack);
    for number in 0..12 {
        let tenant = format!("T0MANY{number}");
        life.app.fake.uninstall(&tenant);
        let called = call(&life, &rotator, &tenant, Credential::Bot).await;
        called.expect_err("uninstalled");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(life.host.tenants().len(), 10);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let called = call(&life, &rotator, "T0MANY11", Credential::Bot).await;
    called.expect_err("uninstalled");
    settled(&rotator).await;
    assert_eq!(life.host.tenants().len(), 11);
}

#[tokio::test(start_paused = true)]
async fn a_pair_that_another_process_may_still_save_is_no_dead_token() {
    use slack_installs::store::{Chain, ChainKey, RotationStore as _};

    let life = Life::new().await;
    life.app.fake.rotate_tokens(Rotation::default());
    life.install_without_user(ADA).await;
    let chain = ChainKey {
        credential: Credential::Bot,
        tenant: key(ALPHA),
    };
    let mut give_up = |chain: Option<&Chain>| {
        let chain = chain?.clone();
        Some(Chain {
            is_dead: true,
            ..chain
        })
    };
    let given_up = life.app.store.update(&chain, None, &mut give_up).await;
    given_up.expect("responds");
    let slack = scripted(&life.app.fake, |_, _| async {
        Some(error("token_revoked"))
    });
    let rotator = healed(&life, &slack);
    refused(&rotator, "token_revoked").await;
    settled(&rotator).await;
    assert!(life.bot_token(ALPHA).await.is_some());
    assert_eq!(life.host.tenants(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_hook_of_an_app_hears_of_a_tenant_that_its_own_call_finds_gone() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.app.fake.uninstall(ALPHA);
    let app = SlackApp::builder()
        .credentials(credentials(&life.app.fake))
        .signing_secret(life.app.fake.signing_secret())
        .redirect_uri(REDIRECT)
        .scopes("chat:write")
        .slack(life.app.slack.clone())
        .clock(life.app.fake.clock())
        .store(life.app.store.clone())
        .lifecycle_hooks(life.host.clone())
        .build()
        .await
        .expect("nothing is missing");
    let called = call(&life, app.rotator(), ALPHA, Credential::Bot).await;
    assert_matches!(called, Err(CallError::Operation(_)));
    assert!(app.shutdown().await);
    assert_eq!(life.host.tenants(), [ALPHA]);
}
