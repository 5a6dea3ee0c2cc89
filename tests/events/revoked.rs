//! `tokens_revoked`: exactly what is listed goes, and only if it is dead.

use slack_installs::Handled;
use slack_installs::testing::{Fault, Who};

use super::*;

#[tokio::test]
async fn the_bots_revocation_leaves_the_users() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.advance(3600);
    life.app
        .fake
        .inject("auth.test", Fault::error("account_inactive"));
    let bot = life.app.fake.bot_user(ALPHA);
    let event = life.app.fake.tokens_revoked(ALPHA, &[], &[bot.as_str()]);
    assert_eq!(life.handled(&event).await, Handled::Revoked);
    assert_eq!(life.bot_token(ALPHA).await, None);
    assert!(life.user_token(ALPHA, ADA).await.is_some());
}

#[tokio::test]
async fn a_bot_that_is_not_ours_is_nobodys_business() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.advance(3600);
    life.app
        .fake
        .inject("auth.test", Fault::error("account_inactive").always());
    // Ada is listed as a bot, and the bot as a user: neither names a token of ours.
    let bot = life.app.fake.bot_user(ALPHA);
    let event = life
        .app
        .fake
        .tokens_revoked(ALPHA, &[bot.as_str()], &["U0OTHERBOT1", ADA]);
    assert_eq!(life.handled(&event).await, Handled::Ignored);
    assert!(life.bot_token(ALPHA).await.is_some());
    assert!(life.user_token(ALPHA, ADA).await.is_some());
}

#[tokio::test]
async fn the_echo_of_a_token_that_was_replaced_takes_no_live_one() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.advance(3600);
    let bot = life.app.fake.bot_user(ALPHA);
    let echo = life.app.fake.tokens_revoked(ALPHA, &[ADA], &[bot.as_str()]);
    assert_eq!(life.handled(&echo).await, Handled::Ignored);
    assert!(life.bot_token(ALPHA).await.is_some());
    assert!(life.user_token(ALPHA, ADA).await.is_some());
}

#[tokio::test]
async fn a_dead_token_goes_though_somebody_else_has_installed_since() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.advance(3600);
    assert!(life.app.fake.revoke_user(ALPHA, ADA));
    let events = life.app.fake.take_events();
    life.advance(3600);
    life.install(BEN).await;
    for event in events {
        assert_eq!(life.handled(&event).await, Handled::Revoked);
    }
    assert_eq!(life.user_token(ALPHA, ADA).await, None);
    assert!(life.user_token(ALPHA, BEN).await.is_some());
}

#[tokio::test]
async fn an_expired_token_is_judged_by_the_time_of_the_event() {
    let life = Life::new().await;
    life.install(ADA).await;
    let bot = life.app.fake.bot_user(ALPHA);
    life.app
        .fake
        .inject("auth.test", Fault::error("token_expired").always());
    let doubtful = life.app.fake.tokens_revoked(ALPHA, &[], &[bot.as_str()]);
    life.deliver(&doubtful).await.expect_err("nobody can say");
    assert!(life.bot_token(ALPHA).await.is_some());
    life.advance(3600);
    let event = life.app.fake.tokens_revoked(ALPHA, &[], &[bot.as_str()]);
    assert_eq!(life.handled(&event).await, Handled::Revoked);
}

#[tokio::test]
async fn an_organisations_revocation_touches_no_workspace() {
    let life = Life::new().await;
    life.install(Who::user(OLGA).at(ORG)).await;
    life.install("U0GRIDUSR02").await;
    life.advance(3600);
    life.app.fake.revoke_user(ORG, OLGA);
    for event in life.app.fake.take_events() {
        assert_eq!(life.handled(&event).await, Handled::Revoked);
    }
    assert_eq!(life.user_token(ORG, OLGA).await, None);
    assert!(life.bot_token(ORG).await.is_some());
    assert!(life.bot_token(SALES).await.is_some());
}
