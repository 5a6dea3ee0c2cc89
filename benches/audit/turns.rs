//! One turn of calls, and its times.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use slack_installs::backend::Backend;
use slack_installs::store::AuditContext;
use slack_installs::{EncryptedStore, InstallationStore as _, UserId};
use sqlx::PgPool;
use tokio::time::Instant;

use super::fill;

/// The times of the calls of one turn, in seconds.
pub(crate) struct Turn {
    times: Vec<f64>,
    elapsed: f64,
}

impl Turn {
    pub(crate) fn per_second(&self) -> f64 {
        self.times.len() as f64 / self.elapsed
    }
}

pub(crate) fn median(mut all: Vec<f64>) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Returns the percentile of all calls, in seconds.
pub(crate) fn percentile(turns: &[Turn], percent: usize) -> f64 {
    let times = turns.iter().flat_map(|turn| &turn.times).copied();
    let mut times: Vec<_> = times.collect();
    times.sort_unstable_by(f64::total_cmp);
    times[(times.len() - 1) * percent / 100]
}

/// Reads at this pace. A call's time begins when it is due, so a store that falls behind is seen.
pub(crate) async fn paced<B: Backend>(
    store: &EncryptedStore<B>,
    tenants: usize,
    pace: Duration,
    time: Duration,
    seed: u64,
) -> Turn {
    let calls = (time.as_nanos() / pace.as_nanos()) as usize;
    turn(store, tenants, CALLERS, calls, seed, Some(pace)).await
}

/// Reads with so many callers, as fast as they can.
pub(crate) async fn at_once<B: Backend>(
    store: &EncryptedStore<B>,
    tenants: usize,
    callers: usize,
    calls: usize,
    seed: u64,
) -> Turn {
    turn(store, tenants, callers, calls, seed, None).await
}

async fn turn<B: Backend>(
    store: &EncryptedStore<B>,
    tenants: usize,
    callers: usize,
    calls: usize,
    seed: u64,
    pace: Option<Duration>,
) -> Turn {
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let callers = (0..callers).map(|_| {
        let (store, next) = (store.clone(), Arc::clone(&next));
        tokio::spawn(async move {
            let mut times = Vec::new();
            loop {
                let nth = next.fetch_add(1, Ordering::Relaxed);
                if nth >= calls {
                    return times;
                }
                let mut due = Instant::now();
                if let Some(pace) = pace {
                    due = begun + pace * u32::try_from(nth).unwrap();
                    tokio::time::sleep_until(due).await;
                }
                read(&store, tenants, seed << 32 | nth as u64).await;
                times.push(due.elapsed().as_secs_f64());
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    let mut times = Vec::new();
    for caller in callers {
        times.extend(caller.await.unwrap());
    }
    let elapsed = begun.elapsed().as_secs_f64();
    Turn { times, elapsed }
}

/// Reads a random tenant's token, as a request of a user does.
async fn read<B: Backend>(store: &EncryptedStore<B>, tenants: usize, nth: u64) {
    let random = mixed(nth);
    let tenant = (random % tenants as u64) as usize;
    let user = UserId::new(format!("U0USER{:05}", random >> 32 & 0xFF)).unwrap();
    let context = AuditContext::actor("slack")
        .because("app_mention")
        .user(Some(user))
        .request(Some(&format!("Ev{nth:012}")));
    let fetched = context.scope(store.fetch(&fill::key(tenant), None)).await;
    std::hint::black_box(fetched.unwrap().unwrap());
}

/// `SplitMix64`.
fn mixed(nth: u64) -> u64 {
    let mut word = nth.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// Makes commits of the smallest row, with so many callers.
pub(crate) async fn commits(pool: &PgPool, callers: usize, calls: usize) -> Turn {
    let begun = Instant::now();
    let callers = (0..callers).map(|_| {
        let pool = pool.clone();
        let calls = calls / callers;
        tokio::spawn(async move {
            let mut times = Vec::with_capacity(calls);
            for _ in 0..calls {
                let call = Instant::now();
                let insert = sqlx::query("INSERT INTO slack_installs_bench_commit VALUES (1)");
                insert.execute(&pool).await.unwrap();
                times.push(call.elapsed().as_secs_f64());
            }
            times
        })
    });
    let callers: Vec<_> = callers.collect();
    let mut times = Vec::new();
    for caller in callers {
        times.extend(caller.await.unwrap());
    }
    let elapsed = begun.elapsed().as_secs_f64();
    Turn { times, elapsed }
}

/// Callers that read at a pace. Enough that a slow call does not make another one late.
const CALLERS: usize = 256;
