//! How often a worker looks at the database, how far, and how fast it serves what it finds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use slack_installs::rotation::WorkerConfig;
use slack_installs::store::{
    Chain, ChainKey, Credential, Error, ListCursor, RotationStore, StoredChain,
};
use slack_installs::testing::{Fault, Rotation};
use slack_installs::{Grant, TokenRotator};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::support::rotation::{Stage, Store, alpha};
use super::{REFRESH, fleet, installed};

/// How long a look takes, and what it finds; `None` is what the store finds, or a failure.
type Look = (Duration, Option<Vec<ChainKey>>);

/// A store that counts what a worker asks of it.
struct Watched {
    store: Store,
    /// By the number of the look.
    look: Box<dyn Fn(usize) -> Look + Send + Sync>,
    /// Whether updates find a row that does not open.
    is_broken: bool,
    looks: Mutex<Vec<(Instant, usize)>>,
    sweeps: Mutex<Vec<Instant>>,
    updates: AtomicUsize,
}

impl Watched {
    fn new(stage: &Stage, look: impl Fn(usize) -> Look + Send + Sync + 'static) -> Self {
        Self {
            store: stage.store.clone(),
            look: Box::new(look),
            is_broken: false,
            looks: Mutex::default(),
            sweeps: Mutex::default(),
            updates: AtomicUsize::new(0),
        }
    }

    fn limits(&self) -> Vec<usize> {
        let looks = self.looks.lock().expect("no panic");
        looks.iter().map(|(_, limit)| *limit).collect()
    }

    /// Between one look and the next, in milliseconds.
    fn gaps(&self) -> Vec<u128> {
        let looks = self.looks.lock().expect("no panic");
        let gap = |pair: &[(Instant, usize)]| (pair[1].0 - pair[0].0).as_millis();
        looks.windows(2).map(gap).collect()
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watched")
    }
}

#[async_trait]
impl RotationStore for Watched {
    async fn chain(&self, key: &ChainKey) -> Result<Option<StoredChain>, Error> {
        self.store.chain(key).await
    }

    async fn update(
        &self,
        key: &ChainKey,
        offered: Option<&Grant>,
        decide: &mut (dyn for<'c> FnMut(Option<&'c Chain>) -> Option<Chain> + Send),
    ) -> Result<Option<StoredChain>, Error> {
        self.updates.fetch_add(1, Ordering::SeqCst);
        match self.is_broken {
            true => Err(Error::Unreadable("changed".into())),
            false => self.store.update(key, offered, decide).await,
        }
    }

    async fn chains(
        &self,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<(Vec<ChainKey>, Option<ListCursor>), Error> {
        self.store.chains(from, limit).await
    }

    async fn due(
        &self,
        now: SystemTime,
        from: Option<ListCursor>,
        limit: usize,
    ) -> Result<(Vec<ChainKey>, Option<ListCursor>), Error> {
        let number = {
            let mut looks = self.looks.lock().expect("no panic");
            looks.push((Instant::now(), limit));
            looks.len() - 1
        };
        let (takes, found) = (self.look)(number);
        tokio::time::sleep(takes).await;
        match found {
            Some(found) => Ok((found, None)),
            None if takes.is_zero() => self.store.due(now, from, limit).await,
            None => Err(Error::Unavailable("away".into())),
        }
    }

    async fn sweep(&self) -> Result<usize, Error> {
        let mut sweeps = self.sweeps.lock().expect("no panic");
        sweeps.push(Instant::now());
        Ok(0)
    }
}

/// A worker that looks every two seconds.
fn working(stage: &Stage, store: &Arc<Watched>, rate: u32) -> JoinHandle<()> {
    let rotator = TokenRotator::new(stage.config(), stage.slack(), Arc::clone(store));
    let rotator = rotator.with_clock(stage.fake.clock()).with_seed(1);
    let config = WorkerConfig {
        every: Duration::from_secs(2),
        rate,
    };
    tokio::spawn(async move { rotator.work(config).await })
}

fn bot() -> ChainKey {
    ChainKey {
        credential: Credential::Bot,
        tenant: alpha(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_looks_every_so_often_give_or_take_half_and_sweeps_every_minute() {
    let stage = installed().await;
    let store = Arc::new(Watched::new(&stage, |_| (Duration::ZERO, None)));
    let worker = working(&stage, &store, 5);
    tokio::time::sleep(Duration::from_secs(600)).await;
    worker.abort();
    let gaps = store.gaps();
    assert!(
        gaps.iter().all(|gap| (1000..=3001).contains(gap)),
        "{gaps:?}"
    );
    assert!(gaps.iter().any(|gap| *gap < 1300), "{gaps:?}");
    assert!(gaps.iter().any(|gap| *gap > 2700), "{gaps:?}");
    // Nothing is due, so the worker does not ask for more rows.
    assert!(store.limits().iter().all(|limit| *limit == 100));
    let sweeps = store.sweeps.lock().expect("no panic");
    assert_eq!(sweeps[0], store.looks.lock().expect("no panic")[0].0);
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
    for (takes, rests) in [(1_000, 9_000), (2_000, 18_000), (10_000, 30_000)] {
        // Found nothing, or failed.
        for found in [Some(Vec::new()), None] {
            let stage = installed().await;
            let look = move |_| (Duration::from_millis(takes), found.clone());
            let store = Arc::new(Watched::new(&stage, look));
            let worker = working(&stage, &store, 5);
            tokio::time::sleep(Duration::from_secs(300)).await;
            worker.abort();
            let expected = u128::from(takes + rests);
            let gaps = store.gaps();
            assert!(!gaps.is_empty());
            let is_so = |gap: &u128| (expected..=expected + 2).contains(gap);
            assert!(gaps.iter().all(is_so), "{takes} ms: {gaps:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_does_not_open_is_left_alone_for_a_minute_and_looked_behind() {
    let stage = installed().await;
    // The twentieth look fails.
    let look = |number| match number {
        20 => (Duration::from_millis(1), None),
        _ => (Duration::ZERO, Some(vec![bot()])),
    };
    let store = Watched {
        is_broken: true,
        ..Watched::new(&stage, look)
    };
    let store = Arc::new(store);
    let begun = Instant::now();
    let worker = working(&stage, &store, 5);
    while store.looks.lock().expect("no panic").len() < 25 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert_eq!(store.updates.load(Ordering::SeqCst), 1);
    assert!(store.limits().iter().all(|limit| *limit == 100));
    tokio::time::sleep(Duration::from_secs(63) - begun.elapsed()).await;
    assert_eq!(store.updates.load(Ordering::SeqCst), 2, "a minute later");
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn a_look_that_finds_nothing_to_do_takes_no_time() {
    let stage = installed().await;
    // A hint that is no longer true, many times over.
    let look = |_| (Duration::ZERO, Some(vec![bot(); 50]));
    let store = Arc::new(Watched::new(&stage, look));
    let worker = working(&stage, &store, 5);
    tokio::time::sleep(Duration::from_secs(60)).await;
    worker.abort();
    let gaps = store.gaps();
    assert!(gaps.iter().all(|gap| *gap <= 3001), "{gaps:?}");
    assert!(store.updates.load(Ordering::SeqCst) >= 50 * gaps.len());
    assert_eq!(stage.refreshes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_worker_begins_so_many_refreshes_a_second() {
    for (rate, between) in [(5, 200), (2, 500), (1, 1000), (0, 1000)] {
        let stage = Stage::new(Rotation::default()).await;
        let tenants = fleet(&stage, 6).await;
        stage.soften();
        let first = stage.fake.calls(REFRESH);
        let store = Arc::new(Watched::new(&stage, |_| (Duration::ZERO, None)));
        let worker = working(&stage, &store, rate);
        tokio::time::sleep(Duration::from_secs(30)).await;
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
    let limited = |seconds| Fault::rate_limited(Duration::from_secs(seconds));
    for (fault, seconds) in [
        (limited(60), 60),
        // For how long is not said, or cannot be meant.
        (Fault::error("ratelimited"), 30),
        (limited(u64::MAX), 300),
    ] {
        let stage = Stage::new(Rotation::default()).await;
        let tenants = fleet(&stage, 5).await;
        stage.soften();
        let calls = stage.fake.calls(REFRESH);
        stage.fake.inject(REFRESH, fault);
        let store = Arc::new(Watched::new(&stage, |_| (Duration::ZERO, None)));
        let worker = working(&stage, &store, 5);
        tokio::time::sleep(Duration::from_secs(seconds - 1)).await;
        assert_eq!(stage.fake.calls(REFRESH), calls + 1, "{seconds} s");
        tokio::time::sleep(Duration::from_secs(15)).await;
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
        fleet(&stage, 12).await;
        stage.soften();
        let rotator = stage.rotator().with_seed(seed);
        let worker = rotator.clone();
        let worker = tokio::spawn(async move { worker.work(WorkerConfig::default()).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        worker.abort();
        let mut keys = Vec::new();
        for key in stage.store.chains(None, 100).await.expect("answers").0 {
            let stored = stage.store.chain(&key).await.expect("answers");
            if stored.expect("installed").chain.generation == 1 {
                keys.push(key.to_string());
            }
        }
        assert_eq!(keys.len(), 1, "{keys:?}");
        first.extend(keys);
    }
    assert!(first.len() > 1, "{first:?}");
}
