//! Sealed rows in memory, for a moment: what plain reads may be answered from.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::{Partition, Row, Slot};

/// How much a store keeps in memory, and for how long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CacheOptions {
    /// How old a response of the database may be, counted from before the request. 2 s by default.
    pub max_age: Duration,
    /// How many responses are kept, of all tenants together. 10,000 by default, a few kB each. A
    /// tenant has one for itself, and one for each of its users who acts at the moment.
    pub max_responses: usize,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(2),
            max_responses: 10_000,
        }
    }
}

/// The responses of a database that are kept, sealed as they are.
pub(super) struct Cache {
    options: CacheOptions,
    responses: Mutex<Responses>,
    /// How many commits began or ended, by hash of the partition. A read during which that
    /// changed may have seen the time before the commit, and is not kept.
    commits: [AtomicU64; COUNTERS],
    hasher: RandomState,
}

/// One response: rows of one time. Kept whole, since rows of two times together would show half
/// of a commit.
struct Response {
    since: Instant,
    slots: Box<[Slot]>,
    rows: Vec<Option<Row>>,
}

#[derive(Default)]
struct Responses {
    of: HashMap<Partition, Vec<Response>>,
    /// The oldest first, which is also the first to be outdated. Some may be deleted already.
    order: VecDeque<(Instant, Partition)>,
}

impl Responses {
    fn push(&mut self, partition: &Partition, response: Response) {
        self.order.push_back((response.since, partition.clone()));
        let kept = self.of.entry(partition.clone()).or_default();
        kept.retain(|other| other.slots != response.slots);
        kept.push(response);
    }

    /// Drops what is outdated, and the oldest as long as there are more than allowed.
    fn shrink(&mut self, now: Instant, options: &CacheOptions) {
        while let Some((since, _)) = self.order.front() {
            let is_old = now.duration_since(*since) >= options.max_age;
            if !is_old && self.order.len() <= options.max_responses {
                return;
            }
            let Some((since, partition)) = self.order.pop_front() else {
                return;
            };
            if let Entry::Occupied(mut kept) = self.of.entry(partition) {
                // One at a time, for each has its place in the order.
                if let Some(at) = kept.get().iter().position(|read| read.since == since) {
                    kept.get_mut().remove(at);
                }
                if kept.get().is_empty() {
                    kept.remove();
                }
            }
        }
    }
}

/// A read that has begun.
pub(super) struct Begun {
    since: Instant,
    commits: u64,
}

impl Cache {
    pub(super) fn new(options: CacheOptions) -> Self {
        Self {
            options,
            responses: Mutex::default(),
            commits: std::array::from_fn(|_| AtomicU64::new(0)),
            hasher: RandomState::new(),
        }
    }

    /// The rows of these slots, if they are kept; or the beginning of a read.
    pub(super) fn begin(
        &self,
        partition: &Partition,
        slots: &[Slot],
    ) -> Result<Vec<Option<Row>>, Begun> {
        let since = Instant::now();
        let is_fresh = |read: &&Response| since.duration_since(read.since) < self.options.max_age;
        let responses = self.responses();
        let of = responses.of.get(partition).map_or(&[][..], Vec::as_slice);
        let mut same = of.iter().filter(|read| *read.slots == *slots);
        match same.find(is_fresh) {
            Some(read) => Ok(read.rows.clone()),
            None => Err(Begun {
                since,
                commits: self.counter(partition).load(Ordering::SeqCst),
            }),
        }
    }

    /// Keeps what the database responded to a read that began so, unless a commit overtook it.
    pub(super) fn keep(
        &self,
        partition: &Partition,
        slots: &[Slot],
        rows: &[Option<Row>],
        begun: &Begun,
    ) {
        // The first installation of a tenant must be seen at once.
        if rows.iter().all(Option::is_none) {
            return;
        }
        let mut responses = self.responses();
        // Under the lock, so that no commit can forget between this look and the insert.
        if self.counter(partition).load(Ordering::SeqCst) != begun.commits {
            return;
        }
        let response = Response {
            since: begun.since,
            slots: slots.into(),
            rows: rows.to_vec(),
        };
        responses.push(partition, response);
        responses.shrink(Instant::now(), &self.options);
    }

    /// Forgets a partition now, and again when the guard is dropped: also if the commit in
    /// between is dropped half-way.
    pub(super) fn forget<'a>(&'a self, partition: &'a Partition) -> Forget<'a> {
        self.forget_now(partition);
        Forget(self, partition)
    }

    fn forget_now(&self, partition: &Partition) {
        let mut responses = self.responses();
        self.counter(partition).fetch_add(1, Ordering::SeqCst);
        responses.of.remove(partition);
    }

    fn responses(&self) -> MutexGuard<'_, Responses> {
        self.responses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn counter(&self, partition: &Partition) -> &AtomicU64 {
        let hash = self.hasher.hash_one(partition);
        &self.commits[usize::try_from(hash % COUNTERS as u64).unwrap_or_default()]
    }
}

/// Forgets a partition when it is dropped.
pub(super) struct Forget<'a>(&'a Cache, &'a Partition);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.forget_now(self.1);
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cache").field(&self.options).finish()
    }
}

/// Enough that commits of other tenants seldom keep a read from being cached.
const COUNTERS: usize = 64;
