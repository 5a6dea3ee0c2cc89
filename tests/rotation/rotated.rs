//! Tokens that leaked are rotated at once.

use std::sync::Arc;

use slack_installs::backend::MemoryBackend;
use slack_installs::rotation::Error;
use slack_installs::store::Credential;
use slack_installs::testing::{Fault, Rotation};

use super::support::checks::Database;
use super::support::rotation::{ALPHA, BotToken as _, HOUR, REFRESH, Stage, alpha, secs};

#[tokio::test(start_paused = true)]
async fn a_leaked_token_is_replaced_and_dead_when_the_call_returns() {
    let stage = Stage::installed().await;
    // It was issued moments ago, so nothing but the call makes it due.
    let old = stage.bot_chain().await.grant;
    let rotator = stage.rotator();
    let rotated = rotator.rotate_now(&alpha(), Credential::Bot).await;
    let rotated = rotated.expect("Slack responds");
    assert!(rotated.unrevoked.is_none());
    let new = rotated.token.access_token.expose();
    assert_ne!(new, old.access_token.expose());
    assert!(stage.fake.is_live(new));
    assert!(!stage.fake.is_live(old.access_token.expose()));
    let refresh_token = old.refresh_token.expect("it rotates");
    assert!(!stage.fake.is_refreshable(refresh_token.expose()));
    assert_eq!(stage.refreshes(), 1);
    assert_eq!(
        rotator
            .bot_token()
            .await
            .expect("current")
            .access_token
            .expose(),
        new
    );
    assert!(stage.fake.is_installed(ALPHA), "the app stays installed");

    // A second leak within minutes is rotated too.
    let again = rotator.rotate_now(&alpha(), Credential::Bot).await;
    assert_ne!(again.expect("rotated").token.access_token.expose(), new);
    assert!(!stage.fake.is_live(new));
}

/// Another process has just replaced the token that this process has in its cache.
#[tokio::test(start_paused = true)]
async fn the_pair_that_the_database_has_is_replaced_and_not_the_one_in_the_cache() {
    for is_leaked in [true, false] {
        let backend = Arc::new(MemoryBackend::default());
        let database = Database::from(backend).cached(HOUR);
        let stage = Stage::on(database, Rotation::default()).await;
        stage.install(ALPHA, "chat:write", "").await;
        let cached = stage.bot_chain().await.chain.generation;
        let another = stage.another().await.rotator();
        // A pair that is new is not replaced by an operator.
        stage.fake.advance(secs(600));
        let second = another.refresh_now(&alpha(), Credential::Bot).await;
        let second = second.expect("Slack responds").access_token;
        stage.fake.advance(secs(600));
        assert_eq!(stage.bot_chain().await.chain.generation, cached);

        let rotator = stage.rotator();
        let third = if is_leaked {
            let rotated = rotator.rotate_now(&alpha(), Credential::Bot).await;
            rotated.expect("Slack responds").token
        } else {
            let refreshed = rotator.refresh_now(&alpha(), Credential::Bot).await;
            refreshed.expect("Slack responds")
        };
        assert_ne!(third.access_token.expose(), second.expose());
        assert!(stage.fake.is_live(third.access_token.expose()));
        assert_eq!(stage.fake.is_live(second.expose()), !is_leaked);
        assert_eq!(stage.refreshes(), 2, "{is_leaked}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leaked_token_is_not_handed_out_again_while_slack_issues_no_other() {
    let stage = Stage::installed().await;
    stage.fake.advance(HOUR);
    let old = stage.bot_chain().await.grant.access_token;
    stage.fake.inject(REFRESH, Fault::unavailable().always());
    let rotator = stage.rotator();
    let outcome = rotator.rotate_now(&alpha(), Credential::Bot).await;
    assert!(outcome.is_err_and(|error| error.is_transient()));
    assert!(!stage.fake.is_live(old.expose()), "it is revoked");
    let outcome = stage.rotator().bot_token().await;
    assert!(outcome.is_err(), "no process hands it out");
    stage.fake.clear_faults();
    tokio::time::sleep(secs(600)).await;
    let new = stage.rotator().bot_token().await.expect("refreshed");
    assert!(stage.fake.is_live(new.access_token.expose()));
}

#[tokio::test(start_paused = true)]
async fn a_long_lived_token_is_not_revoked_because_that_would_uninstall_the_app() {
    let stage = Stage::unrotated().await;
    stage.install(ALPHA, "chat:write", "").await;
    let outcome = stage.rotator().rotate_now(&alpha(), Credential::Bot).await;
    assert_matches!(outcome, Err(Error::NotRotating));
    assert!(stage.fake.is_installed(ALPHA));
    assert_eq!(stage.fake.calls("auth.revoke"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_revocation_that_fails_is_told_beside_the_new_token() {
    let stage = Stage::installed().await;
    stage
        .fake
        .inject("auth.revoke", Fault::unavailable().always());
    let old = stage.bot_chain().await.grant.access_token;
    let rotated = stage.rotator().rotate_now(&alpha(), Credential::Bot).await;
    let rotated = rotated.expect("rotated");
    assert!(rotated.unrevoked.is_some());
    assert_ne!(rotated.token.access_token.expose(), old.expose());
}

#[tokio::test(start_paused = true)]
async fn a_revocation_that_fails_once_is_repeated() {
    let stage = Stage::installed().await;
    stage.fake.inject("auth.revoke", Fault::unavailable());
    let old = stage.bot_chain().await.grant.access_token;
    let rotated = stage.rotator().rotate_now(&alpha(), Credential::Bot).await;
    assert!(rotated.expect("rotated").unrevoked.is_none());
    assert!(!stage.fake.is_live(old.expose()));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_is_spent_is_no_failed_revocation() {
    let stage = Stage::installed().await;
    // The first call revokes the access token.
    stage.fake.inject("auth.revoke", Fault::delay(secs(0)));
    let spent = Fault::error("invalid_auth");
    stage.fake.inject("auth.revoke", spent);
    let rotated = stage.rotator().rotate_now(&alpha(), Credential::Bot).await;
    assert!(rotated.expect("rotated").unrevoked.is_none());
    assert_eq!(stage.fake.calls("auth.revoke"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_does_not_exist_is_named_in_the_error() {
    let stage = Stage::installed().await;
    let user = Credential::User("U0NOBODY001".parse().expect("an id"));
    let outcome = stage.rotator().rotate_now(&alpha(), user).await;
    let Err(error @ Error::NotInstalled { .. }) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(
        error.to_string().contains(&format!("{ALPHA}/U0NOBODY001")),
        "{error}"
    );
}
