//! What happens to many callers while Slack rejects the app itself.

use std::time::Duration;

use slack_installs::rotation::{Error, Token};
use slack_installs::secret::ClientSecret;
use slack_installs::slack::ClientCredentials;
use slack_installs::store::{Chain, ChainKey, Credential, RotationStore as _};
use slack_installs::testing::{Fault, Rotation};
use slack_installs::{InstallationKey, RotationConfig, TokenRotator};
use tokio::task::JoinSet;

use super::support::hooked_chains::Way;
use super::support::rotation::{REFRESH, Stage, millis, secs};

/// The first pause of the breaker.
const PAUSE: Duration = secs(10);

/// Returns tenants whose tokens have expired, and a process whose app Slack has just rejected.
async fn refused(size: usize) -> (Stage, Vec<InstallationKey>, TokenRotator) {
    let stage = Stage::new(Rotation::default()).await;
    let tenants = stage.fleet(size).await;
    stage.expire();
    // The database is slow, so that all callers have a lease before the first one calls Slack.
    let rotator = stage.rotator_with_updates(|_| Way::Slow(millis(10)));
    stage.inject(Fault::error("bad_client_secret"));
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

/// Requests the tokens of all tenants at once.
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
    let stored = stage.store.chain(&key).await.expect("available");
    stored.expect("installed").chain
}

/// Asserts that no lease is left and no attempt is counted, because no call was made.
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
    let slow = || Fault::error("bad_client_secret").delayed(secs(1));
    let writes = || stage.store.backend().counts().commits;
    let written = writes();
    for outcome in ask(&rotator, &tenants).await {
        assert_refused(&outcome);
    }
    assert_eq!(calls(), before, "the pause has just begun");
    assert_eq!(writes(), written, "no lease is taken without a use");
    assert_free(&stage, &tenants).await;
    for (probes, pause) in [PAUSE, 2 * PAUSE, 4 * PAUSE].into_iter().enumerate() {
        tokio::time::sleep(pause).await;
        stage.inject(slow());
        for outcome in ask(&rotator, &tenants).await {
            assert_refused(&outcome);
        }
        assert_eq!(calls(), before + probes + 1, "one call after {pause:?}");
        assert_free(&stage, &tenants).await;
    }
    tokio::time::sleep(8 * PAUSE).await;
    stage.inject(Fault::delay(secs(1)));
    let outcomes = ask(&rotator, &tenants).await;
    let served = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(
        (served, calls()),
        (1, before + 4),
        "one tenant gets a token: the probe"
    );
    // From then on every caller gets a token at once.
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
    stage.inject(dead);
    let outcome = rotator.token_for(&tenants[0], Credential::Bot).await;
    assert_matches!(outcome, Err(Error::ReinstallNeeded { .. }));
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
        let tenants = stage.fleet(3).await;
        stage.expire();
        let calls = stage.fake.calls(REFRESH);
        stage.inject(Fault::error(code).always());
        let rotator = stage.rotator();
        for tenant in &tenants {
            let outcome = rotator.token_for(tenant, Credential::Bot).await;
            let Err(Error::Configuration { code: found }) = outcome else {
                panic!("{outcome:?}");
            };
            assert_eq!(found.as_str(), code);
        }
        assert_eq!(stage.fake.calls(REFRESH), calls + 1, "{code}");
        assert_free(&stage, &tenants).await;
    }
}

#[tokio::test(start_paused = true)]
async fn our_own_wrong_secret_kills_nobody_and_opens_a_breaker() {
    let stage = Stage::new(Rotation::default()).await;
    let tenants = stage.fleet(50).await;
    stage.expire();
    let wrong = ClientCredentials {
        client_id: stage.fake.client_id(),
        client_secret: ClientSecret::new("not-the-secret").expect("plausible"),
    };
    let rotator = stage.rotator_with(RotationConfig::new(wrong));
    for tenant in &tenants {
        let error = rotator
            .token_for(tenant, Credential::Bot)
            .await
            .expect_err("refused");
        assert_matches!(error, Error::Configuration { .. });
    }
    let spent = stage.fake.calls(REFRESH) - tenants.len();
    assert!(
        spent <= 3,
        "{spent} calls with a secret that is known to be wrong"
    );
    let rotator = stage.rotator();
    for tenant in &tenants {
        rotator
            .token_for(tenant, Credential::Bot)
            .await
            .expect("no chain is dead");
    }
}
