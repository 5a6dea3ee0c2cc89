//! Tokens that Slack may have revoked early.

use slack_installs::rotation::Error;
use slack_installs::store::RotationStore as _;
use slack_installs::testing::{Fault, GracePolicy};
use tokio::task::JoinSet;

use super::support::rotation::{BotToken as _, REFRESH, Stage, millis, secs, settle, spawn_caller};

/// Returns a stage whose token is due and not expired, but revoked: both calls of a refresh took
/// effect, and both responses were lost.
async fn ended() -> Stage {
    let stage = Stage::installed_under(GracePolicy::AllLive).await;
    stage.soften();
    let lost = Fault::lost().after_effect().times(2);
    stage.inject(lost);
    let soft = stage.rotator().bot_token().await;
    soft.expect("the token is still valid");
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
    let fetched = stage.fetched().await;
    let refreshed = rotator.refreshed(fetched).await;
    assert!(refreshed.installation.bot.is_none());
    let error = refreshed.bot_error.expect("a reason");
    assert_matches!(error, Error::TryAgain { .. });
    tokio::time::sleep(secs(3)).await;
    let fetched = stage.fetched().await;
    let refreshed = rotator.refreshed(fetched).await;
    let bot = refreshed.installation.bot.expect("it was refreshed");
    assert!(stage.fake.is_live(bot.grant.access_token.expose()));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_under_suspicion_cost_one_question() {
    let stage = ended().await;
    let slow = Fault::delay(millis(100)).always();
    stage.fake.inject("auth.test", slow);
    let rotator = stage.rotator();
    let mut callers = JoinSet::new();
    for _ in 0..1000 {
        let rotator = rotator.clone();
        callers.spawn(async move { rotator.bot_token().await });
    }
    for outcome in callers.join_all().await {
        assert_matches!(outcome, Err(Error::TryAgain { .. }));
    }
    assert_eq!(stage.fake.calls("auth.test"), 1);
}

#[tokio::test(start_paused = true)]
async fn while_slack_is_away_a_token_under_suspicion_serves() {
    let stage = Stage::installed().await;
    stage.soften();
    for method in [REFRESH, "auth.test"] {
        stage.fake.inject(method, Fault::unavailable().always());
    }
    let rotator = stage.rotator();
    for _ in 0..50 {
        let token = rotator.bot_token().await;
        let token = token.expect("Slack does not report the token as revoked");
        assert!(stage.fake.is_live(token.access_token.expose()));
        tokio::time::sleep(secs(30)).await;
    }
    assert!(stage.bot_chain().await.chain.is_suspect());
    stage.expire();
    let hard = rotator.bot_token().await;
    assert_matches!(hard, Err(Error::TryAgain { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_gives_its_own_call_back_and_not_the_one_before() {
    let stage = Stage::installed().await;
    stage.expire();
    stage.inject(Fault::lost());
    let wait = secs(30);
    stage.inject(Fault::rate_limited(wait));
    let outcome = stage.rotator().bot_token().await;
    assert_matches!(outcome, Err(Error::TryAgain { .. }));
    assert_eq!(stage.bot_chain().await.chain.attempts, 1);
}

/// Two processes spend one refresh token: the first pair is saved, and the second becomes an
/// alternate.
async fn race(stage: &Stage) {
    stage.expire();
    let late = |seconds| Fault::delay(secs(seconds)).after_effect();
    stage.inject(late(3));
    stage.inject(late(5));
    let (one, two) = (stage.rotator(), stage.rotator());
    // The clock of the second process is ahead: there, the first one's lease has lapsed.
    let two = two.with_clock(stage.ahead(secs(60)));
    let first = spawn_caller(&one);
    tokio::time::sleep(secs(1)).await;
    drop(two.bot_token().await);
    drop(first.await.expect("no panic"));
}

async fn raced(policy: GracePolicy) -> Stage {
    let stage = Stage::installed_under(policy).await;
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
    // Slack is asked after the second call, and not while that call may end the first pair.
    assert_eq!((stage.refreshes(), stage.fake.calls("auth.test")), (2, 1));
    let soon = stage.fake.clock().now() + secs(3600);
    let due = stage.store.due(soon, None, 10).await;
    assert!(
        due.expect("available").0.is_empty(),
        "the chain is not due for a worker"
    );
}

#[tokio::test(start_paused = true)]
async fn a_race_whose_loser_gets_no_word_from_slack_is_settled_by_the_next_who_comes() {
    let stage = Stage::installed().await;
    stage.fake.inject("auth.test", Fault::lost().always());
    race(&stage).await;
    stage.fake.clear_faults();
    let stored = stage.bot_chain().await;
    assert!(stored.chain.is_suspect(), "{:?}", stored.chain);
    tokio::time::sleep(secs(70)).await;
    let token = stage.rotator().bot_token().await;
    let token = token.expect("refreshed");
    assert!(stage.fake.is_live(token.access_token.expose()));
    let due = stage.store.due(stage.fake.clock().now(), None, 10).await;
    assert!(
        due.expect("available").0.is_empty(),
        "nothing is left to do"
    );
}
