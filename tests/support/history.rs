//! Random histories of concurrent calls on one partition. Each history must have an order of its
//! calls that explains all results: each call takes effect at one moment between its beginning and
//! its end.

use std::collections::{BTreeMap, HashSet};
use std::future::poll_fn;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use slack_installs::backend::{
    Backend, Change, Error, Expect, Metadata, Partition, Row, Sealed, Slot, Version,
};

/// Runs one history of 4 clients with 10 calls each, and checks it. The seed decides the calls; the
/// machine decides how they interleave.
pub async fn check(backend: &dyn Backend, partition: &Partition, seed: u64) {
    let history = History {
        calls: Mutex::default(),
        clock: AtomicU64::new(1),
    };
    let client = |nth: u64| {
        let history = &history;
        async move {
            let mut random = Random(seed * CLIENTS + nth + 1);
            for _ in 0..CALLS {
                let operation = if random.below(5) == 0 {
                    // Reads one slot, or more.
                    let first = random.below(SLOTS.len() as u64) as usize;
                    Operation::Read(slots().split_off(first))
                } else {
                    Operation::Commit(changes(&mut random, &history.seen()))
                };
                history.call(backend, partition, operation).await;
            }
        }
    };
    tokio::join!(client(0), client(1), client(2), client(3));
    let all = Operation::Read(slots());
    history.call(backend, partition, all).await;
    let calls = history
        .calls
        .into_inner()
        .expect("the lock is not poisoned");
    assert!(
        explains(&calls),
        "seed {seed}: no order explains these calls:\n{calls:#?}"
    );
}

/// One call, and when it was made.
#[derive(Debug)]
pub struct Call {
    pub begun: u64,
    /// `u64::MAX` if the response was lost: the call may be applied later, or never.
    pub ended: u64,
    pub operation: Operation,
    pub answer: Answer,
}

#[derive(Debug)]
pub enum Operation {
    Commit(Vec<Change>),
    Read(Vec<Slot>),
}

#[derive(Debug, Eq, PartialEq)]
pub enum Answer {
    Committed(bool),
    Lost,
    Standing(Standing),
}

/// The current version in each slot.
pub type Standing = BTreeMap<Slot, Version>;

struct History {
    calls: Mutex<Vec<Call>>,
    clock: AtomicU64,
}

impl History {
    async fn call(&self, backend: &dyn Backend, partition: &Partition, operation: Operation) {
        let begun = self.clock.fetch_add(1, Ordering::SeqCst);
        let answer = match &operation {
            Operation::Commit(changes) => match backend.commit(partition, changes).await {
                Ok(()) => Answer::Committed(true),
                Err(Error::Conflict) => Answer::Committed(false),
                Err(Error::Unavailable(_)) => Answer::Lost,
                Err(error) => panic!("unexpected error of a commit: {error:?}"),
            },
            Operation::Read(slots) => match backend.read(partition, slots).await {
                Ok(rows) => {
                    let standing = slots.iter().cloned().zip(rows);
                    let standing = standing.filter_map(|(slot, row)| Some((slot, row?.version)));
                    Answer::Standing(standing.collect())
                }
                Err(Error::Unavailable(_)) => return,
                Err(error) => panic!("unexpected error of a read: {error:?}"),
            },
        };
        let ended = match answer {
            Answer::Lost => u64::MAX,
            _ => self.clock.fetch_add(1, Ordering::SeqCst),
        };
        let call = Call {
            begun,
            ended,
            operation,
            answer,
        };
        self.calls
            .lock()
            .expect("the lock is not poisoned")
            .push(call);
    }

    /// Returns the versions that were last put in each slot, as far as they are known.
    fn seen(&self) -> Standing {
        let calls = self.calls.lock().expect("the lock is not poisoned");
        let mut seen = Standing::new();
        for call in calls.iter() {
            if let Operation::Commit(changes) = &call.operation {
                for change in changes {
                    if let Change::Put { slot, row, .. } = change {
                        seen.insert(slot.clone(), row.version);
                    }
                }
            }
        }
        seen
    }
}

/// Returns a commit whose expectations have a fair chance to hold.
fn changes(random: &mut Random, seen: &Standing) -> Vec<Change> {
    let mut changes = Vec::new();
    if random.below(6) == 0 {
        changes.push(Change::Clear);
    }
    for slot in slots() {
        let version = seen.get(&slot).copied().unwrap_or_else(Version::mint);
        let expect = match random.below(8) {
            0 => Expect::Any,
            1..=3 => Expect::Absent,
            _ => Expect::Version(version),
        };
        match random.below(5) {
            0 => changes.push(Change::Put {
                slot,
                row: row(),
                expect,
            }),
            1 => {
                let only = (random.below(2) == 0).then_some(version);
                changes.push(Change::Delete { slot, only });
            }
            2 => changes.push(Change::Check { slot, version }),
            _ => {}
        }
    }
    changes
}

pub fn slots() -> Vec<Slot> {
    SLOTS.map(|name| Slot::new(name).expect("a name")).to_vec()
}

pub fn row() -> Row {
    Row {
        version: Version::mint(),
        metadata: Metadata::new("{}"),
        sealed: Sealed::from_stored(vec![7; 120]),
        due: None,
    }
}

/// Polls all futures concurrently, and returns their outputs in order.
pub async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<_> = futures.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        if outputs.iter().all(Option::is_some) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

/// Reports whether an order exists that explains all results: Wing and Gong's search. It remembers
/// the states that it has visited (Lowe): the set of placed calls and the versions after them.
pub fn explains(calls: &[Call]) -> bool {
    assert!(calls.len() <= 64, "a set of calls must fit into 64 bits");
    let mut open = vec![(0u64, Standing::new())];
    let mut known = HashSet::new();
    while let Some((placed, standing)) = open.pop() {
        let is_left = |nth: &usize| placed & (1 << nth) == 0;
        let left = || (0..calls.len()).filter(is_left);
        if left().all(|nth| calls[nth].answer == Answer::Lost) {
            return true;
        }
        let first_end = left().map(|nth| calls[nth].ended).min().unwrap_or(u64::MAX);
        for nth in left().filter(|&nth| calls[nth].begun < first_end) {
            if let Some(after) = step(&calls[nth], &standing) {
                let next = (placed | 1 << nth, after);
                if known.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
    }
    false
}

/// Returns the versions after a call at this position; `None` if the call's result excludes this
/// position.
fn step(call: &Call, standing: &Standing) -> Option<Standing> {
    let changes = match (&call.operation, &call.answer) {
        (Operation::Commit(changes), _) => changes,
        (Operation::Read(slots), Answer::Standing(seen)) => {
            let is_seen = |slot| standing.get(slot) == seen.get(slot);
            return slots.iter().all(is_seen).then(|| standing.clone());
        }
        (Operation::Read(_), _) => return None,
    };
    let allows =
        |change: &Change| change.allows(change.slot().and_then(|slot| standing.get(slot)).copied());
    let allowed = changes.iter().all(allows);
    if matches!(call.answer, Answer::Committed(committed) if committed != allowed) {
        return None;
    }
    let mut after = standing.clone();
    if !allowed {
        return Some(after);
    }
    if changes.iter().any(|change| matches!(change, Change::Clear)) {
        after.clear();
    }
    for change in changes {
        match change {
            Change::Put { slot, row, .. } => {
                after.insert(slot.clone(), row.version);
            }
            Change::Delete { slot, .. } => {
                after.remove(slot);
            }
            Change::Check { .. } | Change::Clear => {}
        }
    }
    Some(after)
}

/// SplitMix64, so that a seed gives the same numbers on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

const CALLS: u64 = 10;
const CLIENTS: u64 = 4;
const SLOTS: [&str; 3] = ["install", "bot", "user/U1"];
