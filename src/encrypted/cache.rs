//! A cache of sealed rows for plain reads, kept in memory for a short time.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::{Partition, Row, Slot};

/// The capacity of a store's cache, and how long it keeps a response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CacheOptions {
    /// The maximum age of a response, counted from before its request. 2 s by default.
    pub max_age: Duration,
    /// The maximum number of responses, of all tenants together. 10,000 by default, a few kB each.
    /// A tenant has one response, and one more for each of its users who is currently active.
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

/// The database's cached responses. Their rows stay sealed.
pub(super) struct Cache {
    options: CacheOptions,
    responses: Mutex<Responses>,
    /// The number of commits that began or ended, by hash of the partition. If it changes during a
    /// read, the read may have seen the state before the commit, and is not cached.
    commits: [AtomicU64; COUNTERS],
    hasher: RandomState,
}

/// One response: rows that were read at the same time. It is cached as a whole, because rows
/// that were read at different times could show half of a commit.
struct Response {
    since: Instant,
    slots: Box<[Slot]>,
    rows: Vec<Option<Row>>,
}

#[derive(Default)]
struct Responses {
    of: HashMap<Partition, Vec<Response>>,
    /// Oldest first, which is also the order in which they expire. Some may be deleted already.
    order: VecDeque<(Instant, Partition)>,
}

impl Responses {
    fn push(&mut self, partition: &Partition, response: Response) {
        self.order.push_back((response.since, partition.clone()));
        let kept = self.of.entry(partition.clone()).or_default();
        kept.retain(|other| other.slots != response.slots);
        kept.push(response);
    }

    /// Drops the expired responses, and then the oldest ones until the rest fits the capacity.
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
                // Remove only one, because each response has its own entry in `order`.
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

/// A read that has started.
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

    /// Returns the rows of these slots, if they are cached. Otherwise starts a read.
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

    /// Caches the response to a read, unless a commit began or ended during the read.
    pub(super) fn keep(
        &self,
        partition: &Partition,
        slots: &[Slot],
        rows: &[Option<Row>],
        begun: &Begun,
    ) {
        // The first installation of a tenant must be visible at once.
        if rows.iter().all(Option::is_none) {
            return;
        }
        let mut responses = self.responses();
        // Check under the lock, so that no commit can clear the partition before the insert.
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

    /// Drops the partition's responses now, and again when the guard is dropped. The guard does so
    /// even if the commit in between is cancelled.
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

/// Drops a partition's responses when it is dropped.
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

/// The number of counters. With so many, commits of other tenants rarely prevent caching a read.
const COUNTERS: usize = 64;
