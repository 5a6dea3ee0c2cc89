//! Runs the turns of all sides one after the other, and measures each call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::databases::Subject;

/// How many calls are measured.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Calls per turn, one at a time.
    pub(crate) calls_alone: usize,
    /// Calls per turn, many at once.
    pub(crate) calls_at_once: usize,
    /// Turns per side and database.
    pub(crate) rounds: usize,
}

impl Effort {
    pub(crate) const FULL: Self = Self {
        calls_alone: 250,
        calls_at_once: 2500,
        rounds: 50,
    };

    pub(crate) const QUICK: Self = Self {
        calls_alone: 100,
        calls_at_once: 1000,
        rounds: 10,
    };
}

/// The times of one side on one database.
#[derive(Default)]
pub(crate) struct Times {
    /// The time of each call.
    calls: Vec<Duration>,
    /// The calls per second of each turn.
    turns: Vec<f64>,
    /// The CPU time of all threads of this process. The server is not included.
    worked: Duration,
}

impl Times {
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut calls = self.calls.clone();
        calls.sort_unstable();
        calls[(calls.len() - 1) * percent / 100]
    }

    /// Returns the CPU time of this process per call.
    pub(crate) fn worked(&self) -> Duration {
        self.worked / u32::try_from(self.calls.len()).unwrap()
    }

    /// Returns the calls per second of the median turn.
    pub(crate) fn per_second(&self) -> f64 {
        let mut turns = self.turns.clone();
        turns.sort_unstable_by(f64::total_cmp);
        turns[turns.len() / 2]
    }
}

/// Measures each side on each database.
pub(crate) async fn measure(
    subjects: &[Arc<Subject>; 2],
    concurrency: usize,
    calls: usize,
    rounds: usize,
) -> [Vec<Times>; 2] {
    let all: Vec<_> = (0..2)
        .flat_map(|nth| (0..subjects[nth].sides.len()).map(move |side| (nth, side)))
        .collect();
    let mut measured = [0, 1].map(|nth: usize| {
        let sides = subjects[nth].sides.iter();
        sides.map(|_| Times::default()).collect::<Vec<_>>()
    });
    // The first round warms up caches, pools and prepared statements.
    for round in 0..=rounds {
        for turn in 0..all.len() {
            // Each side is first equally often, and follows each of its neighbours.
            let at = match round % 2 {
                0 => (round + turn) % all.len(),
                _ => (round + all.len() - turn) % all.len(),
            };
            let (nth, side) = all[at];
            let seed = (round * all.len() + turn) as u64;
            let taken = take_turn(&subjects[nth], side, concurrency, calls, seed).await;
            if round > 0 {
                let times = &mut measured[nth][side];
                times.calls.extend(taken.calls);
                times.turns.extend(taken.turns);
                times.worked += taken.worked;
            }
        }
    }
    measured
}

async fn take_turn(
    subject: &Arc<Subject>,
    side: usize,
    concurrency: usize,
    calls: usize,
    seed: u64,
) -> Times {
    let left = Arc::new(AtomicUsize::new(calls));
    let worked_before = worked();
    let begun = Instant::now();
    let callers: Vec<_> = (0..concurrency)
        .map(|caller| {
            let (subject, left) = (Arc::clone(subject), Arc::clone(&left));
            let mut random = Random(seed << 32 | caller as u64);
            let mut times = Vec::with_capacity(calls / concurrency * 2);
            tokio::spawn(async move {
                let side = &subject.sides[side].1;
                let is_one_left = || {
                    let one_less = |left: usize| left.checked_sub(1);
                    let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
                    taken.is_ok()
                };
                while is_one_left() {
                    let tenant = random.below(subject.tenants);
                    let begun = Instant::now();
                    std::hint::black_box(side.get(tenant).await);
                    times.push(begun.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Times::default();
    for caller in callers {
        times.calls.extend(caller.await.unwrap());
    }
    times.turns = vec![calls as f64 / begun.elapsed().as_secs_f64()];
    times.worked = worked().saturating_sub(worked_before);
    times
}

/// Returns the CPU time of all threads of this process so far. Returns zero if the system is not
/// Linux.
fn worked() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    let nanoseconds = threads.flatten().filter_map(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// The random number generator `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((word ^ (word >> 31)) % bound as u64) as usize
    }
}
