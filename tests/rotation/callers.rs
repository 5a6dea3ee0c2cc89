//! Many callers of one token, and what each caller gets while the token is replaced.

use slack_installs::rotation::Error;
use slack_installs::store::Credential;
use slack_installs::testing::Fault;
use slack_installs::{RotationConfig, TokenRotator};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::support::rotation::{
    ALPHA, BotToken as _, HOUR, Stage, alpha, millis, refresh_token, secs, settle,
};

/// All callers ask at once.
async fn herd(rotators: &[TokenRotator], callers: usize) -> Vec<Result<String, Error>> {
    let mut herd = JoinSet::new();
    for rotator in rotators {
        for _ in 0..callers {
            let rotator = rotator.clone();
            herd.spawn(async move {
                let token = rotator.bot_token().await?;
                Ok(token.access_token.expose().to_owned())
            });
        }
    }
    herd.join_all().await
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_of_an_expired_token_cost_one_refresh() {
    let stage = Stage::installed().await;
    stage.expire();
    stage.inject(Fault::delay(millis(100)));
    let tokens = herd(&[stage.rotator()], 1000).await;
    assert_eq!(stage.refreshes(), 1);
    let chain = stage.bot_chain().await;
    assert_eq!(chain.chain.generation, 1);
    let stored = chain.grant.access_token.expose();
    assert!(stage.fake.is_live(stored));
    assert!(
        tokens
            .iter()
            .all(|token| token.as_ref().is_ok_and(|token| token == stored))
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_that_does_not_rotate_is_left_alone() {
    let stage = Stage::unrotated().await;
    stage.install(ALPHA, "chat:write", "").await;
    stage.fake.advance(1000 * HOUR);
    let token = stage.rotator().bot_token().await.expect("a token");
    assert_eq!(token.expires_at, None);
    assert_eq!(stage.refreshes(), 0);
}

#[tokio::test(start_paused = true)]
async fn callers_in_the_soft_window_wait_for_nothing() {
    let stage = Stage::installed().await;
    let old = stage.bot_chain().await;
    stage.soften();
    stage.inject(Fault::delay(secs(5)));
    let asked = Instant::now();
    let tokens = herd(&[stage.rotator()], 100).await;
    assert_eq!(
        Instant::now(),
        asked,
        "the paused clock moves only while a caller waits"
    );
    let served = old.grant.access_token.expose();
    assert!(
        tokens
            .iter()
            .all(|token| token.as_ref().is_ok_and(|token| token == served))
    );
    tokio::time::sleep(secs(6)).await;
    assert_eq!(
        stage.bot_chain().await.chain.generation,
        1,
        "the token is replaced in the background"
    );
    assert_eq!(stage.refreshes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_soft_failure_is_nobodys_error_and_a_hard_one_is() {
    let stage = Stage::installed().await;
    stage.soften();
    stage.inject(Fault::rate_limited(secs(30)).always());
    let rotator = stage.rotator();
    assert!(rotator.bot_token().await.is_ok());
    settle().await;
    assert_eq!(stage.refreshes(), 0, "the fault comes first");
    stage.fake.advance(2 * HOUR);
    let error = rotator.bot_token().await.expect_err("expired");
    assert_matches!(error, Error::TryAgain { .. });
}

#[tokio::test(start_paused = true)]
async fn strict_callers_wait_for_a_token_that_is_due() {
    let stage = Stage::installed().await;
    stage.soften();
    let strict = || RotationConfig {
        strict: true,
        ..stage.config()
    };
    stage.inject(Fault::unavailable().times(2));
    let rotator = stage.rotator_with(strict());
    let error = rotator.bot_token().await.expect_err("refused");
    assert_matches!(error, Error::TryAgain { .. });
    tokio::time::sleep(secs(10)).await;
    rotator.bot_token().await.expect("refreshed");
    assert_eq!(stage.bot_chain().await.chain.generation, 1);
}

#[tokio::test(start_paused = true)]
async fn a_first_caller_that_goes_away_changes_nothing() {
    let stage = Stage::installed().await;
    stage.expire();
    stage.inject(Fault::delay(secs(1)));
    let rotator = stage.rotator();
    let (key, impatient) = (alpha(), rotator.clone());
    let first = impatient.token_for(&key, Credential::Bot);
    let gone = tokio::time::timeout(millis(10), first).await;
    assert!(gone.is_err(), "the caller was dropped during the call");
    rotator.bot_token().await.expect("the refresh continued");
    assert_eq!(stage.refreshes(), 1);
    assert_eq!(stage.bot_chain().await.chain.generation, 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_whose_patience_ends_is_told_and_the_refresh_goes_on() {
    let stage = Stage::installed().await;
    stage.expire();
    stage.inject(Fault::delay(secs(5)));
    let rotator = stage.rotator();
    let hurried = rotator.within(secs(3));
    let error = hurried.bot_token().await.expect_err("too slow");
    assert!(matches!(error, Error::Busy) && error.is_transient());
    rotator.bot_token().await.expect("a token");
    assert_eq!(stage.refreshes(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_last_access_token_of_a_dead_chain_serves_to_its_end_and_no_longer() {
    let stage = Stage::installed().await;
    let old = stage.bot_chain().await;
    stage
        .slack()
        .auth_revoke_refresh_token(refresh_token(&old))
        .await
        .expect("revoked");
    stage.soften();
    let rotator = stage.rotator();
    rotator.bot_token().await.expect("still alive");
    settle().await;
    let token = rotator.bot_token().await.expect("still alive");
    assert!(token.is_last);
    let strict = stage.rotator_with(RotationConfig {
        strict: true,
        ..stage.config()
    });
    let error = strict.bot_token().await.expect_err("strict");
    assert_matches!(error, Error::ReinstallNeeded { .. });
    stage.fake.advance(2 * HOUR);
    let error = rotator.bot_token().await.expect_err("expired");
    assert_matches!(error, Error::ReinstallNeeded { .. });
    assert_eq!(stage.refreshes(), 1);
}

#[tokio::test(start_paused = true)]
async fn at_most_two_access_tokens_live_by_our_doing() {
    // A third pair would end the first one, which a caller may still use.
    let stage = Stage::installed().await;
    let rotator = stage.rotator();
    for _ in 0..500 {
        stage.fake.advance(secs(17 * 60));
        let token = rotator.bot_token().await.expect("a token");
        settle().await;
        assert!(stage.fake.is_live(token.access_token.expose()));
    }
    let most = 500 * 17 / 60 / 9 + 1;
    assert!(stage.refreshes() <= most, "{} refreshes", stage.refreshes());
}

#[tokio::test(start_paused = true)]
async fn no_secret_is_in_any_debug_text() {
    let stage = Stage::installed().await;
    stage.expire();
    let rotator = stage.rotator();
    let token = rotator.bot_token().await.expect("a token");
    let chain = stage.bot_chain().await;
    let text = format!("{rotator:?} {token:?} {chain:?} {:?}", stage.config());
    for secret in stage.fake.secrets() {
        assert!(!text.contains(&secret));
    }
}
