//! What many callers do while Slack refuses the app itself.

use std::time::Duration;

use slack_installs::rotation::{Error, Token};
use slack_installs::store::{Chain, ChainKey, Credential, RotationStore as _};
use slack_installs::testing::{Fault, Rotation};
use slack_installs::{InstallationKey, TokenRotator};
use tokio::task::JoinSet;

use super::support::rotation::Stage;
use super::{REFRESH, Way, fleet, rotator_over};

/// The first pause of the breaker.
const PAUSE: Duration = Duration::from_secs(10);

/// Tenants whose tokens have expired, and a process that Slack has just refused.
async fn refused(size: usize) -> (Stage, Vec<InstallationKey>, TokenRotator) {
    let stage = Stage::new(Rotation::default()).await;
    let tenants = fleet(&stage, size).await;
    stage.expire();
    // The database takes a moment, so that all who ask have the lease before the first one calls.
    let rotator = rotator_over(&stage, |_| Way::Slow(Duration::from_millis(10)));
    stage
        .fake
        .inject(REFRESH, Fault::error("bad_client_secret"));
    let outcome = rotator.token_for(&tenants[0], Credential::Bot).await;
    assert_refused(&outcome);
    (stage, tenants, rotator)
}

fn assert_refused(outcome: &Result<Token, Error>) {
    let Err(Error::Configuration { code }) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(code.as_str(), "bad_client_secret");
}

/// All of them ask at once.
async fn ask(rotator: &TokenRotator, tenants: &[InstallationKey]) -> Vec<Result<Token, Error>> {
    let mut callers = JoinSet::new();
    for tenant in tenants {
        let (rotator, tenant) = (rotator.clone(), tenant.clone());
        callers.spawn(async move { rotator.token_for(&tenant, Credential::Bot).await });
    }
    callers.join_all().await
}

async fn chain(stage: &Stage, tenant: &InstallationKey) -> Chain {
    let key = ChainKey {
        credential: Credential::Bot,
        tenant: tenant.clone(),
    };
    let stored = stage.store.chain(&key).await.expect("answers");
    stored.expect("installed").chain
}

/// A call that was not made is no reason for doubt, and nobody waits for its lease.
async fn assert_free(stage: &Stage, tenants: &[InstallationKey]) {
    for tenant in tenants {
        let chain = chain(stage, tenant).await;
        assert_eq!((chain.attempts, chain.lease), (0, None), "{tenant}");
        assert!(!chain.is_dead, "{tenant}");
        let now = stage.fake.clock().now();
        assert!(chain.retry_at.is_none_or(|at| at <= now), "{tenant}");
    }
}

#[tokio::test(start_paused = true)]
async fn however_many_ask_one_call_in_each_pause_finds_out_whether_slack_takes_the_app_again() {
    let (stage, tenants, rotator) = refused(8).await;
    let calls = || stage.fake.calls(REFRESH);
    let before = calls();
    let slow = || Fault::error("bad_client_secret").delayed(Duration::from_secs(1));
    let writes = || stage.store.backend().counts().commits;
    let written = writes();
    for outcome in ask(&rotator, &tenants).await {
        assert_refused(&outcome);
    }
    assert_eq!(calls(), before, "the pause has just begun");
    assert_eq!(writes(), written, "no lease is taken that nobody uses");
    assert_free(&stage, &tenants).await;
    for (probes, pause) in [PAUSE, 2 * PAUSE, 4 * PAUSE].into_iter().enumerate() {
        tokio::time::sleep(pause).await;
        stage.fake.inject(REFRESH, slow());
        for outcome in ask(&rotator, &tenants).await {
            assert_refused(&outcome);
        }
        assert_eq!(calls(), before + probes + 1, "one call after {pause:?}");
        assert_free(&stage, &tenants).await;
    }
    tokio::time::sleep(8 * PAUSE).await;
    stage
        .fake
        .inject(REFRESH, Fault::delay(Duration::from_secs(1)));
    let outcomes = ask(&rotator, &tenants).await;
    let served = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!((served, calls()), (1, before + 4), "the one that found out");
    // From then on everybody is served, at once.
    for outcome in ask(&rotator, &tenants).await {
        outcome.expect("a token");
    }
    assert_eq!(calls(), before + 3 + tenants.len());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_one_token_tells_too_that_slack_takes_the_app_again() {
    let (stage, tenants, rotator) = refused(5).await;
    tokio::time::sleep(PAUSE).await;
    let dead = Fault::error("invalid_refresh_token");
    stage.fake.inject(REFRESH, dead);
    let outcome = rotator.token_for(&tenants[0], Credential::Bot).await;
    assert!(
        matches!(outcome, Err(Error::ReinstallNeeded { .. })),
        "{outcome:?}"
    );
    for outcome in ask(&rotator, &tenants[1..]).await {
        outcome.expect("a token");
    }
}

#[tokio::test(start_paused = true)]
async fn each_code_that_concerns_the_app_stops_all_tenants_of_the_process() {
    for code in [
        "accesslimited",
        "bad_client_secret",
        "bad_redirect_uri",
        "invalid_client_id",
        "invalid_grant_type",
        "oauth_authorization_url_mismatch",
        "pkce_not_allowed",
        "token_rotation_not_enabled",
        "unknown_method",
    ] {
        let stage = Stage::new(Rotation::default()).await;
        let tenants = fleet(&stage, 3).await;
        stage.expire();
        let calls = stage.fake.calls(REFRESH);
        stage.fake.inject(REFRESH, Fault::error(code).always());
        let rotator = stage.rotator();
        for tenant in &tenants {
            let outcome = rotator.token_for(tenant, Credential::Bot).await;
            assert!(
                matches!(&outcome, Err(Error::Configuration { code: found }) if found.as_str() == code),
                "{outcome:?}"
            );
        }
        assert_eq!(stage.fake.calls(REFRESH), calls + 1, "{code}");
        assert_free(&stage, &tenants).await;
    }
}
