//! Those who wait: for another's lease, for the database, and until they have had enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use slack_installs::rotation::Error;
use slack_installs::store::{Chain, ChainKey, Credential, Lease, RotationStore as _};
use slack_installs::testing::Fault;
use slack_installs::{InstallationStore as _, TokenRotator};
use tokio::time::Instant;

use super::support::rotation::{Stage, alpha, settle};
use super::{REFRESH, Way, installed, rotator_over};

/// Another process takes the lease, which ends so far ahead on its clock.
async fn lease(stage: &Stage, owner: u128, ends_in: Duration) {
    let key = ChainKey {
        credential: Credential::Bot,
        tenant: alpha(),
    };
    let until = stage.fake.clock().now() + ends_in;
    let mut decide = |chain: Option<&Chain>| {
        let mut next = chain?.clone();
        next.lease = Some(Lease { owner, until });
        next.attempts += 1;
        Some(next)
    };
    let updated = stage.store.update(&key, None, &mut decide).await;
    updated.expect("answers").expect("installed");
}

/// A process, and how many updates it has asked for.
fn counted(
    stage: &Stage,
    way: impl Fn() -> Way + Send + Sync + 'static,
) -> (TokenRotator, impl Fn() -> usize) {
    let updates = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&updates);
    let rotator = rotator_over(stage, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        way()
    });
    (rotator.with_seed(1), move || updates.load(Ordering::SeqCst))
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_seen_for_longer_than_a_lease_lasts_has_lapsed_whatever_its_owners_clock() {
    let stage = installed().await;
    stage.expire();
    lease(&stage, 7, Duration::from_secs(3600)).await;
    let begun = Instant::now();
    let (rotator, updates) = counted(&stage, || Way::Done);
    let caller = tokio::spawn(async move { rotator.token_for(&alpha(), Credential::Bot).await });
    tokio::time::sleep(Duration::from_millis(14_900)).await;
    assert_eq!(stage.refreshes(), 0);
    // At first often, and then a few times a second.
    let looks = updates();
    assert!((28..80).contains(&looks), "{looks} looks in 15 s");
    let token = caller.await.expect("no panic").expect("taken over");
    assert!(stage.fake.is_live(token.access_token.expose()));
    assert!(begun.elapsed() < Duration::from_secs(17));
    assert_eq!(stage.refreshes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_never_gets_its_turn_ends_after_a_minute() {
    let stage = installed().await;
    stage.expire();
    lease(&stage, 0, Duration::from_secs(3600)).await;
    let rotator = stage.rotator().within(Duration::from_secs(1000));
    let begun = Instant::now();
    let caller = tokio::spawn(async move {
        let asked = rotator.token_for(&alpha(), Credential::Bot).await;
        (asked, begun.elapsed())
    });
    // Other processes take the lease one after the other, and die.
    for owner in 1..=12 {
        lease(&stage, owner, Duration::from_secs(3600)).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    let (asked, after) = caller.await.expect("no panic");
    assert!(matches!(asked, Err(Error::Busy)), "{asked:?}");
    let minute = Duration::from_secs(60)..Duration::from_secs(61);
    assert!(minute.contains(&after), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_those_who_wait_for_another_process() {
    let stage = installed().await;
    stage.expire();
    lease(&stage, 7, Duration::from_secs(3600)).await;
    let rotator = stage.rotator();
    let waiting = rotator.clone();
    let caller = tokio::spawn(async move { waiting.token_for(&alpha(), Credential::Bot).await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(rotator.shutdown(Duration::from_secs(1)).await);
    let asked = caller.await.expect("no panic");
    assert!(matches!(asked, Err(Error::Interrupted)), "{asked:?}");
    assert_eq!(stage.refreshes(), 0);
}

#[tokio::test(start_paused = true)]
async fn two_short_outages_of_the_database_are_not_one_long_one() {
    let stage = installed().await;
    stage.expire();
    lease(&stage, 7, Duration::from_secs(3600)).await;
    let begun = Instant::now();
    let (rotator, _) = counted(&stage, move || {
        match begun.elapsed().as_millis() {
            // Between them it says that another process has the lease.
            0..7_000 | 9_500..17_000 => Way::Failed,
            _ => Way::Done,
        }
    });
    let rotator = rotator.within(Duration::from_secs(60));
    let token = rotator.token_for(&alpha(), Credential::Bot).await;
    token.expect("the lease has lapsed, and the database is back");
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_away_is_asked_every_second_and_one_that_refuses_once() {
    let stage = installed().await;
    stage.expire();
    let (rotator, updates) = counted(&stage, || Way::Failed);
    let asked = rotator.token_for(&alpha(), Credential::Bot).await;
    assert!(matches!(asked, Err(Error::Store(_))), "{asked:?}");
    let updates = updates();
    assert!((11..=24).contains(&updates), "{updates} in ten seconds");
    let (rotator, updates) = counted(&stage, || Way::Unreadable);
    let asked = rotator.token_for(&alpha(), Credential::Bot).await;
    assert!(matches!(asked, Err(Error::Store(_))), "{asked:?}");
    assert_eq!(updates(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_does_not_wait_for_another_process() {
    let stage = installed().await;
    stage.soften();
    lease(&stage, 7, Duration::from_secs(60)).await;
    let (rotator, updates) = counted(&stage, || Way::Done);
    // The first use of the chain is noted, too.
    for (pause, expected) in [(0, 2), (1_900, 2), (200, 3), (1_900, 3), (200, 4)] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let fetched = stage.store.fetch(&alpha(), None).await;
        let fetched = fetched.expect("answers").expect("installed");
        let refreshed = rotator.refreshed(fetched).await;
        assert!(refreshed.bot_error.is_none());
        settle().await;
        assert_eq!(updates(), expected, "after {pause} ms more");
    }
    assert_eq!(stage.refreshes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_repeats_a_refresh_whose_process_died_while_the_token_serves() {
    let stage = installed().await;
    stage.soften();
    lease(&stage, 7, Duration::from_secs(15)).await;
    let (rotator, updates) = counted(&stage, || Way::Done);
    let ask = async || {
        let token = rotator.token_for(&alpha(), Credential::Bot).await;
        token.expect("it serves still");
        settle().await;
    };
    ask().await;
    assert_eq!(updates(), 0, "another process has the lease");
    tokio::time::sleep(Duration::from_secs(16)).await;
    ask().await;
    assert_eq!(stage.bot_chain().await.chain.generation, 1);
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_waits_or_is_dead_costs_no_write_while_its_token_serves() {
    let limited = Fault::rate_limited(Duration::from_secs(120));
    for refusal in [limited, Fault::error("invalid_refresh_token")] {
        let stage = installed().await;
        stage.soften();
        stage.fake.inject(REFRESH, refusal);
        let first = stage.rotator().token_for(&alpha(), Credential::Bot).await;
        first.expect("it serves still");
        settle().await;
        let (rotator, updates) = counted(&stage, || Way::Done);
        for _ in 0..5 {
            let token = rotator.token_for(&alpha(), Credential::Bot).await;
            token.expect("it serves still");
            settle().await;
        }
        assert_eq!(updates(), 0, "another process knows it from the chain");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_not_due_costs_one_read_and_no_update() {
    for strict in [false, true] {
        let stage = installed().await;
        let config = slack_installs::RotationConfig {
            strict,
            ..stage.config()
        };
        let reads = stage.reads();
        let writes = stage.store.backend().counts().commits;
        let rotator = stage.rotator_with(config);
        let token = rotator.token_for(&alpha(), Credential::Bot).await;
        token.expect("fresh");
        settle().await;
        assert_eq!(stage.reads(), reads + 1, "strict: {strict}");
        assert_eq!(stage.store.backend().counts().commits, writes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_without_patience_is_not_given_a_token_that_slack_may_have_ended() {
    let stage = installed().await;
    stage.soften();
    let lost = Fault::lost().times(2);
    stage.fake.inject(REFRESH, lost);
    let rotator = stage.rotator();
    let first = rotator.token_for(&alpha(), Credential::Bot).await;
    first.expect("it serves still");
    settle().await;
    assert!(stage.bot_chain().await.chain.is_suspect());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let slow = Fault::delay(Duration::from_secs(5));
    stage.fake.inject(REFRESH, slow);
    let hurried = rotator.within(Duration::from_secs(1));
    let asked = hurried.token_for(&alpha(), Credential::Bot).await;
    assert!(matches!(asked, Err(Error::Busy)), "{asked:?}");
    assert_eq!(stage.fake.calls("auth.test"), 0);
    let fetched = stage.store.fetch(&alpha(), None).await;
    let fetched = fetched.expect("answers").expect("installed");
    let refreshed = hurried.refreshed(fetched).await;
    assert!(matches!(refreshed.bot_error, Some(Error::Busy)));
}
