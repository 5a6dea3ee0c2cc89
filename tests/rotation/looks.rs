//! How often a worker reads the database, how many rows it reads, and how fast it handles them.

use std::time::Duration;

use slack_installs::rotation::WorkerConfig;
use slack_installs::store::RotationStore as _;
use slack_installs::testing::{Fault, Rotation};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::support::hooked_chains::{HookedChains, Look, Way};
use super::support::rotation::{REFRESH, Stage, bot, millis, secs, spawn_worker};

/// Spawns a worker that looks every two seconds.
fn working(stage: &Stage, store: &HookedChains, rate: u32) -> JoinHandle<()> {
    let rotator = stage.rotator_on(store.clone()).with_seed(1);
    let every = secs(2);
    tokio::spawn(async move { rotator.work(WorkerConfig { every, rate }).await })
}

/// Returns a store with a hook that decides how long each look takes and what it finds.
fn looking(stage: &Stage, look: impl Fn(usize) -> Look + Send + Sync + 'static) -> HookedChains {
    HookedChains::new(stage.store.clone(), |_| Way::Done, look)
}

/// Returns the times between two looks, in milliseconds.
fn gaps(store: &HookedChains) -> Vec<u128> {
    let gap = |pair: &[(Instant, usize)]| (pair[1].0 - pair[0].0).as_millis();
    store.looks().windows(2).map(gap).collect()
}

#[tokio::test(start_paused = true)]
async fn a_worker_looks_every_so_often_give_or_take_half_and_sweeps_every_minute() {
    let stage = Stage::installed().await;
    let store = stage.hooked(|_| Way::Done);
    let worker = working(&stage, &store, 5);
    tokio::time::sleep(secs(600)).await;
    worker.abort();
    let gaps = gaps(&store);
    assert!(
        gaps.iter().all(|gap| (1000..=3001).contains(gap)),
        "{gaps:?}"
    );
    assert!(gaps.iter().any(|gap| *gap < 1300), "{gaps:?}");
    assert!(gaps.iter().any(|gap| *gap > 2700), "{gaps:?}");
    // Nothing is due, so the worker does not request more rows.
    assert!(store.looks().iter().all(|(_, limit)| *limit == 100));
    let sweeps = store.sweeps();
    assert_eq!(sweeps[0], store.looks()[0].0);
    let gaps: Vec<_> = sweeps
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_millis())
        .collect();
    assert!(
        gaps.iter().all(|gap| (60_000..=63_001).contains(gap)),
        "{gaps:?}"
    );
    assert_eq!(gaps.len(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_worker_rests_nine_times_as_long_as_a_look_takes_and_thirty_seconds_at_most() {
    // After a look that failed, it rests for ten seconds at most.
    for (takes, idle, failed) in [
        (1_000, 9_000, 9_000),
        (2_000, 18_000, 10_000),
        (10_000, 30_000, 10_000),
    ] {
        for (found, rests) in [(Some(Vec::new()), idle), (None, failed)] {
            let stage = Stage::installed().await;
            let look = move |_| (millis(takes), found.clone());
            let store = looking(&stage, look);
            let worker = working(&stage, &store, 5);
            tokio::time::sleep(secs(300)).await;
            worker.abort();
            let expected = u128::from(takes + rests);
            let gaps = gaps(&store);
            assert!(!gaps.is_empty());
            let is_so = |gap: &u128| (expected..=expected + 2).contains(gap);
            assert!(gaps.iter().all(is_so), "{takes} ms: {gaps:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_does_not_open_is_left_alone_for_a_minute_and_looked_behind() {
    let stage = Stage::installed().await;
    // The twentieth look fails.
    let look = |number| match number {
        20 => (millis(1), None),
        _ => (Duration::ZERO, Some(vec![bot()])),
    };
    let store = HookedChains::new(stage.store.clone(), |_| Way::Unreadable, look);
    let begun = Instant::now();
    let worker = working(&stage, &store, 5);
    while store.looks().len() < 25 {
        tokio::time::sleep(millis(100)).await;
    }
    assert!(begun.elapsed() < secs(60));
    assert_eq!(store.updates(), 1);
    assert!(store.looks().iter().all(|(_, limit)| *limit == 100));
    tokio::time::sleep(secs(63) - begun.elapsed()).await;
    assert_eq!(
        store.updates(),
        2,
        "the chain is tried again a minute later"
    );
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn a_look_that_finds_nothing_to_do_takes_no_time() {
    let stage = Stage::installed().await;
    // An outdated hint, 50 times.
    let look = |_| (Duration::ZERO, Some(vec![bot(); 50]));
    let store = looking(&stage, look);
    let worker = working(&stage, &store, 5);
    tokio::time::sleep(secs(60)).await;
    worker.abort();
    let gaps = gaps(&store);
    assert!(gaps.iter().all(|gap| *gap <= 3001), "{gaps:?}");
    assert!(store.updates() >= 50 * gaps.len());
    assert_eq!(stage.refreshes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_worker_begins_so_many_refreshes_a_second() {
    for (rate, between) in [(5, 200), (2, 500), (1, 1000), (0, 1000)] {
        let stage = Stage::new(Rotation::default()).await;
        let tenants = stage.fleet(6).await;
        stage.soften();
        let first = stage.fake.calls(REFRESH);
        let store = stage.hooked(|_| Way::Done);
        let worker = working(&stage, &store, rate);
        tokio::time::sleep(secs(30)).await;
        worker.abort();
        let calls: Vec<_> = stage.fake.call_log();
        let times: Vec<_> = calls
            .iter()
            .filter(|call| call.method == REFRESH)
            .skip(first)
            .map(|call| call.at)
            .collect();
        assert_eq!(times.len(), tenants.len(), "{rate} a second");
        for pair in times.windows(2) {
            let gap = pair[1].duration_since(pair[0]).expect("later");
            let gap = gap.as_millis();
            assert!(
                (between..=between + 10).contains(&gap),
                "{gap} ms at {rate}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_waits_while_slack_asks_to() {
    let limited = |seconds| Fault::rate_limited(secs(seconds));
    for (fault, seconds) in [
        (limited(60), 60),
        // The response has no time to wait, or an absurd one.
        (Fault::error("ratelimited"), 30),
        (limited(u64::MAX), 300),
    ] {
        let stage = Stage::new(Rotation::default()).await;
        let tenants = stage.fleet(5).await;
        stage.soften();
        let calls = stage.fake.calls(REFRESH);
        stage.inject(fault);
        let store = stage.hooked(|_| Way::Done);
        let worker = working(&stage, &store, 5);
        tokio::time::sleep(secs(seconds - 1)).await;
        assert_eq!(stage.fake.calls(REFRESH), calls + 1, "{seconds} s");
        tokio::time::sleep(secs(15)).await;
        worker.abort();
        let expected = calls + 1 + tenants.len();
        assert_eq!(stage.fake.calls(REFRESH), expected, "{seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn workers_begin_at_different_places_of_what_is_due() {
    let mut first = std::collections::BTreeSet::new();
    for seed in 1..=6 {
        let stage = Stage::new(Rotation::default()).await;
        stage.fleet(12).await;
        stage.soften();
        let rotator = stage.rotator().with_seed(seed);
        let worker = spawn_worker(&rotator);
        tokio::time::sleep(millis(100)).await;
        worker.abort();
        let mut keys = Vec::new();
        for key in stage.store.chains(None, 100).await.expect("available").0 {
            let stored = stage.store.chain(&key).await.expect("available");
            if stored.expect("installed").chain.generation == 1 {
                keys.push(key.to_string());
            }
        }
        assert_eq!(keys.len(), 1, "{keys:?}");
        first.extend(keys);
    }
    assert!(first.len() > 1, "{first:?}");
}
