//! A database whose next commits fail in the way that a test chooses.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use slack_installs::backend::{
    Backend, Change, Cursor, Error, Page, Partition, Queue, Row, Scope, Slot,
};

/// What becomes of one commit.
pub(crate) enum Fate {
    /// It fails with a conflict.
    Conflict,
    /// It fails as malformed.
    Malformed,
    /// This runs first, then it is applied as far as it still can be.
    Overtaken(Then),
    /// It is applied or not, then `then` runs, and the caller gets no response.
    Lost { done: bool, then: Then },
}

/// What runs before the caller gets an error.
pub(crate) type Then = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Counts calls, and fails the next commits as the test chose. A commit without changes is not
/// counted and does not fail.
pub(crate) struct Meddling {
    inner: Arc<dyn Backend>,
    fates: Mutex<VecDeque<Fate>>,
    failing_reads: AtomicUsize,
    longest_page: usize,
    commits: AtomicUsize,
    dues: AtomicUsize,
    most_asked: AtomicUsize,
}

impl Meddling {
    pub(crate) fn new(inner: Arc<dyn Backend>) -> Self {
        Self::paged(inner, usize::MAX)
    }

    /// The same, with at most this many rows in a page of a scan.
    pub(crate) fn paged(inner: Arc<dyn Backend>, longest_page: usize) -> Self {
        Self {
            inner,
            fates: Mutex::default(),
            failing_reads: AtomicUsize::new(0),
            longest_page,
            commits: AtomicUsize::new(0),
            dues: AtomicUsize::new(0),
            most_asked: AtomicUsize::new(0),
        }
    }

    /// Sets the fates of the next commits, in this order.
    pub(crate) fn next(&self, fates: impl IntoIterator<Item = Fate>) {
        self.fates().extend(fates);
    }

    /// Fails the next reads, this many of them.
    pub(crate) fn fail_reads(&self, reads: usize) {
        self.failing_reads.store(reads, Ordering::SeqCst);
    }

    /// The number of commits so far.
    pub(crate) fn commits(&self) -> usize {
        self.commits.load(Ordering::SeqCst)
    }

    /// The number of calls of `due` so far.
    pub(crate) fn dues(&self) -> usize {
        self.dues.load(Ordering::SeqCst)
    }

    /// The largest limit of a `scan` or a `due` so far.
    pub(crate) fn most_asked(&self) -> usize {
        self.most_asked.load(Ordering::SeqCst)
    }

    fn fates(&self) -> MutexGuard<'_, VecDeque<Fate>> {
        self.fates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Meddling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meddling")
    }
}

#[async_trait]
impl Backend for Meddling {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        let left = &self.failing_reads;
        let fails = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            left.checked_sub(1)
        });
        match fails {
            Ok(_) => Err(Error::Unavailable("read lost on purpose".into())),
            Err(_) => self.inner.read(partition, slots).await,
        }
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        if changes.is_empty() {
            return self.inner.commit(partition, changes).await;
        }
        self.commits.fetch_add(1, Ordering::SeqCst);
        let fate = self.fates().pop_front();
        match fate {
            None => self.inner.commit(partition, changes).await,
            Some(Fate::Conflict) => Err(Error::Conflict),
            Some(Fate::Overtaken(then)) => {
                then.await;
                self.inner.commit(partition, changes).await
            }
            Some(Fate::Malformed) => Err(Error::Malformed("refused on purpose".into())),
            Some(Fate::Lost { done, then }) => {
                if done {
                    self.inner.commit(partition, changes).await?;
                }
                then.await;
                Err(Error::Unavailable("answer lost on purpose".into()))
            }
        }
    }

    async fn scan(&self, scope: &Scope, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        self.most_asked.fetch_max(limit, Ordering::SeqCst);
        self.inner
            .scan(scope, from, limit.min(self.longest_page))
            .await
    }

    async fn due(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        self.dues.fetch_add(1, Ordering::SeqCst);
        self.most_asked.fetch_max(limit, Ordering::SeqCst);
        self.inner.due(queue, now, from, limit).await
    }
}
