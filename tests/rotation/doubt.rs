//! Tokens that Slack may have ended before their time.

use std::time::Duration;

use slack_installs::InstallationStore as _;
use slack_installs::rotation::Error;
use slack_installs::store::{Credential, RotationStore as _};
use slack_installs::testing::{Fault, GracePolicy, Rotation};
use tokio::task::JoinSet;

use super::support::rotation::{Stage, alpha, settle};
use super::{REFRESH, ahead, installed_with};

/// A token that is due and serves, and that Slack has ended: both calls of a refresh had their
/// effect, and nobody heard of it.
async fn ended() -> Stage {
    let stage = installed_with(Rotation {
        policy: GracePolicy::AllLive,
        ..Rotation::default()
    })
    .await;
    stage.soften();
    let lost = Fault::lost().after_effect().times(2);
    stage.fake.inject(REFRESH, lost);
    let soft = stage.rotator().token_for(&alpha(), Credential::Bot).await;
    soft.expect("it still serves");
    settle().await;
    let stored = stage.bot_chain().await;
    assert!(!stage.fake.is_live(stored.grant.access_token.expose()));
    assert!(stored.chain.is_suspect());
    stage
}

#[tokio::test(start_paused = true)]
async fn an_installation_that_was_fetched_gets_no_token_that_slack_has_ended() {
    let stage = ended().await;
    let rotator = stage.rotator();
    let fetched = stage.store.fetch(&alpha(), None).await;
    let fetched = fetched.expect("answers").expect("installed");
    let refreshed = rotator.refreshed(fetched).await;
    assert!(refreshed.installation.bot.is_none());
    let error = refreshed.bot_error.expect("a reason");
    assert!(matches!(error, Error::TryAgain { .. }), "{error:?}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let fetched = stage.store.fetch(&alpha(), None).await;
    let fetched = fetched.expect("answers").expect("installed");
    let refreshed = rotator.refreshed(fetched).await;
    let bot = refreshed.installation.bot.expect("it was refreshed");
    assert!(stage.fake.is_live(bot.grant.access_token.expose()));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_under_suspicion_cost_one_question() {
    let stage = ended().await;
    let slow = Fault::delay(Duration::from_millis(100)).always();
    stage.fake.inject("auth.test", slow);
    let rotator = stage.rotator();
    let mut callers = JoinSet::new();
    for _ in 0..1000 {
        let rotator = rotator.clone();
        callers.spawn(async move { rotator.token_for(&alpha(), Credential::Bot).await });
    }
    for outcome in callers.join_all().await {
        assert!(
            matches!(outcome, Err(Error::TryAgain { .. })),
            "{outcome:?}"
        );
    }
    assert_eq!(stage.fake.calls("auth.test"), 1);
}

#[tokio::test(start_paused = true)]
async fn while_slack_is_away_a_token_under_suspicion_serves() {
    let stage = installed_with(Rotation::default()).await;
    stage.soften();
    for method in [REFRESH, "auth.test"] {
        stage.fake.inject(method, Fault::unavailable().always());
    }
    let rotator = stage.rotator();
    for _ in 0..50 {
        let token = rotator.token_for(&alpha(), Credential::Bot).await;
        let token = token.expect("nobody says that it has ended");
        assert!(stage.fake.is_live(token.access_token.expose()));
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    assert!(stage.bot_chain().await.chain.is_suspect());
    stage.expire();
    let hard = rotator.token_for(&alpha(), Credential::Bot).await;
    assert!(matches!(hard, Err(Error::TryAgain { .. })), "{hard:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_gives_its_own_call_back_and_not_the_one_before() {
    let stage = installed_with(Rotation::default()).await;
    stage.expire();
    stage.fake.inject(REFRESH, Fault::lost());
    let wait = Duration::from_secs(30);
    stage.fake.inject(REFRESH, Fault::rate_limited(wait));
    let outcome = stage.rotator().token_for(&alpha(), Credential::Bot).await;
    assert!(
        matches!(outcome, Err(Error::TryAgain { .. })),
        "{outcome:?}"
    );
    assert_eq!(stage.bot_chain().await.chain.attempts, 1);
}

/// Two processes spend one refresh token: the first pair is saved, the second kept beside it.
async fn race(stage: &Stage) {
    stage.expire();
    let late = |seconds| Fault::delay(Duration::from_secs(seconds)).after_effect();
    stage.fake.inject(REFRESH, late(3));
    stage.fake.inject(REFRESH, late(5));
    let (one, two) = (stage.rotator(), stage.rotator());
    // Its clock is ahead: the other's lease has lapsed there.
    let two = two.with_clock(ahead(stage, Duration::from_secs(60)));
    let first = tokio::spawn(async move { one.token_for(&alpha(), Credential::Bot).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(two.token_for(&alpha(), Credential::Bot).await);
    drop(first.await.expect("no panic"));
}

async fn raced(policy: GracePolicy) -> Stage {
    let stage = installed_with(Rotation {
        policy,
        ..Rotation::default()
    })
    .await;
    race(&stage).await;
    stage
}

#[tokio::test(start_paused = true)]
async fn the_loser_of_a_race_replaces_a_pair_that_slack_has_ended() {
    let stage = raced(GracePolicy::NewestOnly).await;
    let stored = stage.bot_chain().await;
    assert!(stage.fake.is_live(stored.grant.access_token.expose()));
    assert_eq!((stored.chain.generation, stored.chain.attempts), (2, 0));
    assert!(stored.alternates.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_loser_of_a_race_leaves_a_pair_that_lives() {
    let stage = raced(GracePolicy::AllLive).await;
    let stored = stage.bot_chain().await;
    assert!(stage.fake.is_live(stored.grant.access_token.expose()));
    assert_eq!((stored.chain.generation, stored.chain.attempts), (1, 0));
    assert_eq!(stored.alternates.len(), 1);
    // Both ask: the first knew that another call had been begun.
    assert_eq!((stage.refreshes(), stage.fake.calls("auth.test")), (2, 2));
    let soon = stage.fake.clock().now() + Duration::from_secs(3600);
    let due = stage.store.due(soon, None, 10).await;
    assert!(due.expect("answers").0.is_empty(), "no worker has to come");
}

#[tokio::test(start_paused = true)]
async fn a_race_whose_loser_gets_no_word_from_slack_is_settled_by_the_next_who_comes() {
    let stage = installed_with(Rotation::default()).await;
    stage.fake.inject("auth.test", Fault::lost().always());
    race(&stage).await;
    stage.fake.clear_faults();
    let stored = stage.bot_chain().await;
    assert!(stored.chain.is_suspect(), "{:?}", stored.chain);
    tokio::time::sleep(Duration::from_secs(70)).await;
    let token = stage.rotator().token_for(&alpha(), Credential::Bot).await;
    let token = token.expect("refreshed");
    assert!(stage.fake.is_live(token.access_token.expose()));
    let due = stage.store.due(stage.fake.clock().now(), None, 10).await;
    assert!(due.expect("answers").0.is_empty(), "nothing is left to do");
}
