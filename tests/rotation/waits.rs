//! Callers that wait for another process's lease or for the database, and how long they wait.

use std::time::Duration;

use slack_installs::TokenRotator;
use slack_installs::rotation::Error;
use slack_installs::store::{Chain, Lease};
use slack_installs::testing::Fault;
use tokio::time::Instant;

use super::support::hooked_chains::{HookedChains, Way};
use super::support::rotation::{BotToken as _, Stage, millis, secs, settle, spawn_caller};

/// Takes the lease as another process. The lease ends this far ahead on that process's clock.
async fn lease(stage: &Stage, owner: u128, ends_in: Duration) {
    let until = stage.fake.clock().now() + ends_in;
    let taken = |chain: &mut Chain| {
        chain.lease = Some(Lease { owner, until });
        chain.attempts += 1;
    };
    stage.change(taken).await;
}

/// Returns a rotator with a hook that decides the fate of each update, and its store, which counts
/// them.
fn counted(
    stage: &Stage,
    way: impl Fn() -> Way + Send + Sync + 'static,
) -> (TokenRotator, HookedChains) {
    let store = stage.hooked(move |_| way());
    (stage.rotator_on(store.clone()).with_seed(1), store)
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_seen_for_longer_than_a_lease_lasts_has_lapsed_whatever_its_owners_clock() {
    let stage = Stage::installed().await;
    stage.expire();
    lease(&stage, 7, secs(3600)).await;
    let begun = Instant::now();
    let (rotator, store) = counted(&stage, || Way::Done);
    let caller = spawn_caller(&rotator);
    tokio::time::sleep(millis(14_900)).await;
    assert_eq!(stage.refreshes(), 0);
    // The process looks often at first, and then a few times a second.
    let looks = store.updates();
    assert!((28..80).contains(&looks), "{looks} looks in 15 s");
    let token = caller.await.expect("no panic").expect("taken over");
    assert!(stage.fake.is_live(token.access_token.expose()));
    assert!(begun.elapsed() < secs(17));
    assert_eq!(stage.refreshes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_never_gets_its_turn_ends_after_a_minute() {
    let stage = Stage::installed().await;
    stage.expire();
    lease(&stage, 0, secs(3600)).await;
    let rotator = stage.rotator().within(secs(1000));
    let begun = Instant::now();
    let caller = tokio::spawn(async move {
        let asked = rotator.bot_token().await;
        (asked, begun.elapsed())
    });
    // Other processes take the lease one after the other, and die.
    for owner in 1..=12 {
        lease(&stage, owner, secs(3600)).await;
        tokio::time::sleep(secs(10)).await;
    }
    let (asked, after) = caller.await.expect("no panic");
    assert_matches!(asked, Err(Error::Busy));
    let minute = secs(60)..secs(61);
    assert!(minute.contains(&after), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_those_who_wait_for_another_process() {
    let stage = Stage::installed().await;
    stage.expire();
    lease(&stage, 7, secs(3600)).await;
    let rotator = stage.rotator();
    let caller = spawn_caller(&rotator);
    tokio::time::sleep(secs(5)).await;
    assert!(rotator.shutdown(secs(1)).await);
    let asked = caller.await.expect("no panic");
    assert_matches!(asked, Err(Error::Interrupted));
    assert_eq!(stage.refreshes(), 0);
}

#[tokio::test(start_paused = true)]
async fn two_short_outages_of_the_database_are_not_one_long_one() {
    let stage = Stage::installed().await;
    stage.expire();
    lease(&stage, 7, secs(3600)).await;
    let begun = Instant::now();
    let (rotator, _) = counted(&stage, move || {
        match begun.elapsed().as_millis() {
            // Between the two outages, the database shows that another process has the lease.
            0..7_000 | 9_500..17_000 => Way::Failed,
            _ => Way::Done,
        }
    });
    let rotator = rotator.within(secs(60));
    let token = rotator.bot_token().await;
    token.expect("the lease has lapsed, and the database is back");
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_away_is_asked_every_second_and_one_that_refuses_once() {
    let stage = Stage::installed().await;
    stage.expire();
    let (rotator, store) = counted(&stage, || Way::Failed);
    let asked = rotator.bot_token().await;
    assert_matches!(asked, Err(Error::Store(_)));
    let updates = store.updates();
    assert!((11..=24).contains(&updates), "{updates} in ten seconds");
    let (rotator, store) = counted(&stage, || Way::Unreadable);
    let asked = rotator.bot_token().await;
    assert_matches!(asked, Err(Error::Store(_)));
    assert_eq!(store.updates(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_does_not_wait_for_another_process() {
    let stage = Stage::installed().await;
    stage.soften();
    lease(&stage, 7, secs(60)).await;
    let (rotator, store) = counted(&stage, || Way::Done);
    // The first use of the chain is noted, too.
    for (pause, expected) in [(0, 2), (1_900, 2), (200, 3), (1_900, 3), (200, 4)] {
        tokio::time::sleep(millis(pause)).await;
        let fetched = stage.fetched().await;
        let refreshed = rotator.refreshed(fetched).await;
        assert!(refreshed.bot_error.is_none());
        settle().await;
        assert_eq!(store.updates(), expected, "after {pause} ms more");
    }
    assert_eq!(stage.refreshes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_repeats_a_refresh_whose_process_died_while_the_token_serves() {
    let stage = Stage::installed().await;
    stage.soften();
    lease(&stage, 7, secs(15)).await;
    let (rotator, store) = counted(&stage, || Way::Done);
    let ask = async || {
        let token = rotator.bot_token().await;
        token.expect("the token is still valid");
        settle().await;
    };
    ask().await;
    assert_eq!(store.updates(), 0, "another process has the lease");
    tokio::time::sleep(secs(16)).await;
    ask().await;
    assert_eq!(stage.bot_chain().await.chain.generation, 1);
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_waits_or_is_dead_costs_no_write_while_its_token_serves() {
    let limited = Fault::rate_limited(secs(120));
    for refusal in [limited, Fault::error("invalid_refresh_token")] {
        let stage = Stage::installed().await;
        stage.soften();
        stage.inject(refusal);
        let first = stage.rotator().bot_token().await;
        first.expect("the token is still valid");
        settle().await;
        let (rotator, store) = counted(&stage, || Way::Done);
        for _ in 0..5 {
            let token = rotator.bot_token().await;
            token.expect("the token is still valid");
            settle().await;
        }
        assert_eq!(
            store.updates(),
            0,
            "another process reads it from the chain"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_not_due_costs_one_read_and_no_update() {
    for strict in [false, true] {
        let stage = Stage::installed().await;
        let config = slack_installs::RotationConfig {
            strict,
            ..stage.config()
        };
        let reads = stage.reads();
        let writes = stage.store.backend().counts().commits;
        let rotator = stage.rotator_with(config);
        let token = rotator.bot_token().await;
        token.expect("fresh");
        settle().await;
        assert_eq!(stage.reads(), reads + 1, "strict: {strict}");
        assert_eq!(stage.store.backend().counts().commits, writes);
        assert_eq!(stage.refreshes(), 0, "strict: {strict}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_without_patience_is_not_given_a_token_that_slack_may_have_ended() {
    let stage = Stage::installed().await;
    stage.soften();
    let lost = Fault::lost().times(2);
    stage.inject(lost);
    let rotator = stage.rotator();
    let first = rotator.bot_token().await;
    first.expect("the token is still valid");
    settle().await;
    assert!(stage.bot_chain().await.chain.is_suspect());
    tokio::time::sleep(secs(3)).await;
    let slow = Fault::delay(secs(5));
    stage.inject(slow);
    let hurried = rotator.within(secs(1));
    let asked = hurried.bot_token().await;
    assert_matches!(asked, Err(Error::Busy));
    assert_eq!(stage.fake.calls("auth.test"), 0);
    let fetched = stage.fetched().await;
    let refreshed = hurried.refreshed(fetched).await;
    assert_matches!(refreshed.bot_error, Some(Error::Busy));
}
