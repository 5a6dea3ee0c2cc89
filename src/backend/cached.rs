//! Sealed rows in memory, for a moment.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
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
///   purged elsewhere may be handed out for that long, and no longer. Decisions are not taken on
///   stale rows: a commit compares versions in the database, and a conflict empties the cache of
///   that tenant.
/// * What is absent is not cached: a new installation is seen at once.
///
/// ```
/// use slack_installs::backend::{CacheOptions, CachedBackend, MemoryBackend};
///
/// let backend = CachedBackend::new(MemoryBackend::default(), CacheOptions::default());
/// ```
pub struct CachedBackend<B> {
    inner: B,
    options: CacheOptions,
    reads: Mutex<HashMap<Partition, Vec<Read>>>,
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
    /// How many tenants are kept. 10,000 by default, a few kB each.
    pub max_tenants: usize,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(2),
            max_tenants: 10_000,
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

    fn reads(&self) -> MutexGuard<'_, HashMap<Partition, Vec<Read>>> {
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
        if reads.len() >= self.options.max_tenants && !reads.contains_key(partition) {
            let now = read.since;
            let fresh = |read: &Read| now.duration_since(read.since) < self.options.max_age;
            reads.retain(|_, kept| kept.iter().any(fresh));
            if reads.len() >= self.options.max_tenants {
                // Everything in it is a moment old; what is wanted is back in a moment.
                reads.clear();
            }
        }
        let kept = reads.entry(partition.clone()).or_default();
        kept.retain(|other| other.slots != read.slots);
        if kept.len() >= READS_OF_A_TENANT {
            kept.remove(0);
        }
        kept.push(read);
    }

    fn forget(&self, partition: &Partition) {
        let mut reads = self.reads();
        self.counter(partition).fetch_add(1, Ordering::SeqCst);
        reads.remove(partition);
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

/// A tenant's facts and bot are read with no user, or with one of those who act at the moment.
const READS_OF_A_TENANT: usize = 64;
