//! Sealed rows in memory, for a moment.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Backend, Change, Cursor, Error, Key, Page, Partition, Row, Slot};

/// Keeps what was read for a moment, sealed as it is, and answers from it.
///
/// * Never plaintext: a cached row is opened anew each time, in microseconds.
/// * A commit through this cache is seen by every read that starts after it, as without a cache.
/// * A commit by another process is seen within [`CacheOptions::max_age`]. So a token that was
///   purged elsewhere may be handed out for that long, and no longer.
/// * Decisions are not taken on stale rows. A commit compares versions in the database, and it
///   empties the cache of its tenant, whatever comes of it, and also if it has no changes; the
///   store makes such a one before it reads what a decision is taken on.
/// * An answer without any row is not kept: the first installation of a tenant is seen at once.
///   One with some rows is kept with its gaps: a token that another process adds to an
///   installation (a user's, say) may be missing for [`CacheOptions::max_age`].
///
/// ```
/// use slack_installs::backend::{CacheOptions, CachedBackend, MemoryBackend};
///
/// let backend = CachedBackend::new(MemoryBackend::default(), CacheOptions::default());
/// ```
pub struct CachedBackend<B> {
    inner: B,
    options: CacheOptions,
    reads: Mutex<Reads>,
    /// How many commits began or ended, by hash of the partition: a read during which that
    /// changed may have seen the time before the commit, and is not kept.
    commits: [AtomicU64; COUNTERS],
    hasher: RandomState,
}

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CacheOptions {
    /// How old an answer may be, counted from before the database was asked. 2 s by default.
    pub max_age: Duration,
    /// How many answers are kept, of all tenants together. 10,000 by default, a few kB each. A
    /// tenant has one for itself, and one for each of its users who acts at the moment.
    pub max_answers: usize,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(2),
            max_answers: 10_000,
        }
    }
}

/// One answer: rows that stood at one time. Kept whole, since rows of two times together would
/// show half a commit.
struct Read {
    since: Instant,
    slots: Box<[Slot]>,
    rows: Vec<Option<Row>>,
}

#[derive(Default)]
struct Reads {
    of: HashMap<Partition, Vec<Read>>,
    /// The oldest first, which is also the first to be outdated. Some may be gone by now.
    order: VecDeque<(Instant, Partition)>,
}

impl Reads {
    fn push(&mut self, partition: &Partition, read: Read) {
        self.order.push_back((read.since, partition.clone()));
        let kept = self.of.entry(partition.clone()).or_default();
        kept.retain(|other| other.slots != read.slots);
        kept.push(read);
    }

    /// Drops what is outdated, and the oldest until no more than this are left.
    fn shrink(&mut self, now: Instant, options: &CacheOptions) {
        while let Some((since, _)) = self.order.front() {
            let is_old = now.duration_since(*since) >= options.max_age;
            if !is_old && self.order.len() <= options.max_answers {
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

impl<B: Backend> CachedBackend<B> {
    /// A cache in front of this backend.
    #[must_use]
    pub fn new(inner: B, options: CacheOptions) -> Self {
        Self {
            inner,
            options,
            reads: Mutex::default(),
            commits: std::array::from_fn(|_| AtomicU64::new(0)),
            hasher: RandomState::new(),
        }
    }

    /// The backend behind the cache.
    #[must_use]
    pub fn inner(&self) -> &B {
        &self.inner
    }

    fn reads(&self) -> MutexGuard<'_, Reads> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counter(&self, partition: &Partition) -> &AtomicU64 {
        let hash = self.hasher.hash_one(partition);
        &self.commits[usize::try_from(hash % COUNTERS as u64).unwrap_or_default()]
    }

    fn kept(
        &self,
        partition: &Partition,
        slots: &[Slot],
        now: Instant,
    ) -> Option<Vec<Option<Row>>> {
        let reads = self.reads();
        let fresh = |read: &&Read| now.duration_since(read.since) < self.options.max_age;
        let mut kept = reads
            .of
            .get(partition)?
            .iter()
            .filter(|read| *read.slots == *slots);
        kept.find(fresh).map(|read| read.rows.clone())
    }

    fn keep(&self, partition: &Partition, read: Read, seen: u64) {
        let mut reads = self.reads();
        // Under the lock, so that no commit can empty the cache between this look and the insert.
        if self.counter(partition).load(Ordering::SeqCst) != seen {
            return;
        }
        let now = read.since;
        reads.push(partition, read);
        reads.shrink(now, &self.options);
    }

    fn forget(&self, partition: &Partition) {
        let mut reads = self.reads();
        self.counter(partition).fetch_add(1, Ordering::SeqCst);
        reads.of.remove(partition);
    }
}

/// Forgets a partition when it goes, also when the commit is dropped half-way.
struct Forget<'a, B: Backend>(&'a CachedBackend<B>, &'a Partition);

impl<B: Backend> Drop for Forget<'_, B> {
    fn drop(&mut self) {
        self.0.forget(self.1);
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Backend> Backend for CachedBackend<B> {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        let since = Instant::now();
        if let Some(rows) = self.kept(partition, slots, since) {
            return Ok(rows);
        }
        let seen = self.counter(partition).load(Ordering::SeqCst);
        let rows = self.inner.read(partition, slots).await?;
        if rows.iter().any(Option::is_some) {
            let read = Read {
                since,
                slots: slots.into(),
                rows: rows.clone(),
            };
            self.keep(partition, read, seen);
        }
        Ok(rows)
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        self.forget(partition);
        // Whatever comes of it, a conflict included: what was kept may be what is outdated.
        let _forget = Forget(self, partition);
        self.inner.commit(partition, changes).await
    }

    async fn scan(&self, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        self.inner.scan(from, limit).await
    }

    async fn due(&self, now: SystemTime, limit: usize) -> Result<Vec<(Key, Row)>, Error> {
        self.inner.due(now, limit).await
    }
}

impl<B: fmt::Debug> fmt::Debug for CachedBackend<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedBackend")
            .field("inner", &self.inner)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Enough that commits of other tenants seldom keep a read from being cached.
const COUNTERS: usize = 64;
