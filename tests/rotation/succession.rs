//! Which pair is current after an installation is stored over another one.

use slack_installs::testing::{Fault, GracePolicy};
use slack_installs::{Delete, Installation, InstallationStore as _};

use super::support::rotation::{
    ALPHA, BotToken as _, Stage, alpha, refresh_token, secs, spawn_caller,
};

async fn fetched(stage: &Stage) -> Installation {
    let found = stage.store.fetch(&alpha(), None).await;
    found.expect("available").expect("installed").installation
}

async fn delete(stage: &Stage) {
    let deleted = stage.store.delete(&alpha(), &Delete::all()).await;
    assert!(deleted.expect("available"));
}

async fn refreshed(stage: &Stage) {
    stage.expire();
    let token = stage.rotator().bot_token().await;
    token.expect("a token");
}

#[tokio::test(start_paused = true)]
async fn an_installation_fetched_before_a_refresh_and_stored_after_it_brings_no_old_pair_back() {
    let stage = Stage::installed().await;
    let mut copies = Vec::new();
    for _ in 0..4 {
        copies.push(fetched(&stage).await);
        refreshed(&stage).await;
    }
    copies.push(fetched(&stage).await);
    let before = stage.bot_chain().await;
    for (number, mut copy) in copies.into_iter().enumerate() {
        copy.metadata = Some(format!("plan {number}"));
        stage.store.store(&copy).await.expect("stored");
        let after = stage.bot_chain().await;
        assert_eq!(after.chain, before.chain, "copy {number}");
        assert_eq!(
            refresh_token(&after).expose(),
            refresh_token(&before).expose()
        );
        let token = after.grant.access_token.expose();
        assert_eq!(token, before.grant.access_token.expose());
        assert_eq!(fetched(&stage).await.metadata, copy.metadata);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_saves_its_pair_over_an_installation_that_is_stored_again_meanwhile() {
    let stage = Stage::installed().await;
    refreshed(&stage).await;
    stage.expire();
    let delay = secs(2);
    stage.inject(Fault::delay(delay).after_effect());
    let rotator = stage.rotator();
    let waiting = spawn_caller(&rotator);
    tokio::time::sleep(delay / 2).await;
    let copy = fetched(&stage).await;
    stage.store.store(&copy).await.expect("stored");
    let token = waiting.await.expect("no panic").expect("a token");
    assert!(stage.fake.is_live(token.access_token.expose()));
    let chain = stage.bot_chain().await;
    assert_eq!(chain.chain.generation, 2);
    assert!(stage.fake.is_refreshable(refresh_token(&chain).expose()));
    assert_eq!(
        stage.fake.calls("auth.revoke"),
        0,
        "no stored pair was revoked as an orphan"
    );
}

#[tokio::test(start_paused = true)]
async fn an_installation_that_is_stored_late_replaces_no_later_one_and_its_refresh_token_is_kept() {
    // Two users install, and the first one's callback is delayed.
    let stage = Stage::installed().await;
    let early = fetched(&stage).await;
    delete(&stage).await;
    stage.fake.advance(secs(20));
    stage.install(ALPHA, "chat:write", "").await;
    let later = fetched(&stage).await;
    stage.store.store(&early).await.expect("stored");

    let now = fetched(&stage).await;
    assert_eq!(now.installed_at, later.installed_at);
    let token = |it: &Installation| {
        it.bot
            .as_ref()
            .expect("a bot")
            .grant
            .access_token
            .expose()
            .to_owned()
    };
    assert_eq!(token(&now), token(&later));
    let chain = stage.bot_chain().await;
    assert_eq!(chain.alternates.len(), 1);
    // Storing it again changes nothing.
    stage.store.store(&early).await.expect("stored");
    assert_eq!(stage.bot_chain().await.chain, chain.chain);
    // Slack kept the first pair alive, not the later one.
    let slack = stage.slack();
    let revoked = slack.auth_revoke_refresh_token(refresh_token(&chain)).await;
    revoked.expect("the fake revokes");
    refreshed(&stage).await;
    let rescued = stage.bot_chain().await;
    assert!(stage.fake.is_live(rescued.grant.access_token.expose()));
}

#[tokio::test(start_paused = true)]
async fn a_dead_chain_is_replaced_by_any_other_installations_tokens() {
    let stage = Stage::installed_under(GracePolicy::FirstOnly).await;
    let early = fetched(&stage).await;
    delete(&stage).await;
    stage.fake.advance(secs(20));
    stage.install(ALPHA, "chat:write", "").await;
    stage.expire();
    let dead = Fault::error("invalid_refresh_token");
    stage.inject(dead);
    let refused = stage.rotator().bot_token().await;
    refused.expect_err("dead");
    assert!(stage.bot_chain().await.chain.is_dead);
    stage.store.store(&early).await.expect("stored");
    let chain = stage.bot_chain().await;
    assert!(!chain.chain.is_dead);
    refreshed(&stage).await;
    let chain = stage.bot_chain().await;
    assert!(stage.fake.is_live(chain.grant.access_token.expose()));
}
