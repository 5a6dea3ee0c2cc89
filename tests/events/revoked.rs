//! `tokens_revoked`: exactly what is listed goes, and only if it is dead.

use slack_installs::secret::{AccessToken, RefreshToken};
use slack_installs::store::{self, Chain, ChainKey, Credential, Mark, RotationStore as _};
use slack_installs::testing::{Fault, Who};
use slack_installs::{Delete, Grant, Handled, InstallationStore as _, Scopes};

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

#[tokio::test]
async fn an_address_that_is_not_on_the_allow_list_takes_no_token() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.advance(60);
    let bot = life.app.fake.bot_user(ALPHA);
    let echo = life.app.fake.tokens_revoked(ALPHA, &[ADA], &[bot.as_str()]);
    let fault = Fault::error("invalid_auth").always();
    life.app.fake.inject("auth.test", fault);
    life.deliver(&echo).await.expect_err("nobody can say");
    assert!(life.bot_token(ALPHA).await.is_some());
    assert!(life.user_token(ALPHA, ADA).await.is_some());
}

#[tokio::test]
async fn a_user_who_cannot_be_judged_keeps_no_other_token_alive() {
    let life = Life::new().await;
    life.install(ADA).await;
    life.install(BEN).await;
    life.advance(3600);
    for user in [ADA, BEN] {
        assert!(life.app.fake.revoke_user(ALPHA, user));
    }
    life.app.fake.inject("auth.test", Fault::unavailable());
    let event = life.app.fake.tokens_revoked(ALPHA, &[ADA, BEN], &[]);
    life.deliver(&event).await.expect_err("Ada is not judged");
    assert_eq!(life.user_token(ALPHA, BEN).await, None);
    assert!(life.user_token(ALPHA, ADA).await.is_some());
    assert_eq!(life.handled(&event).await, Handled::Revoked);
    assert_eq!(life.user_token(ALPHA, ADA).await, None);
}

#[tokio::test]
async fn a_token_that_was_refreshed_while_it_was_judged_stays() {
    let life = Life::new().await;
    life.install(ADA).await;
    let judged = life.app.fetch(ALPHA, None).await.expect("installed");
    let bot = judged.bot.as_ref().expect("a bot");
    let delete = Delete::bot()
        .only(judged.revision.expect("a revision"))
        .holding(&bot.grant.access_token);
    // As a refresh does it: another token, and the same revision of the installation.
    let key = ChainKey {
        credential: Credential::Bot,
        tenant: judged.key(),
    };
    let next = Grant {
        access_token: AccessToken::new("xoxe.xoxb-1-next").expect("a token"),
        refresh_token: Some(RefreshToken::new("xoxe-1-next").expect("a token")),
        expires_at: None,
        scopes: Scopes::from("commands"),
    };
    let store = &life.app.store;
    let mut refresh = |chain: Option<&Chain>| {
        let refresh = next.refresh_token.as_ref().map(Mark::of);
        chain.cloned().map(|chain| Chain { refresh, ..chain })
    };
    let moved = store.update(&key, Some(&next), &mut refresh).await;
    moved.expect("answers").expect("it stands");
    let outcome = store.delete(&key.tenant, &delete).await;
    assert!(
        matches!(outcome, Err(store::Error::Conflict)),
        "{outcome:?}"
    );
    let current = life.bot_token(ALPHA).await;
    assert_eq!(current.as_deref(), Some("xoxe.xoxb-1-next"));
    let delete = delete.holding(&next.access_token);
    assert!(store.delete(&key.tenant, &delete).await.expect("answers"));
    assert_eq!(life.bot_token(ALPHA).await, None);
}
