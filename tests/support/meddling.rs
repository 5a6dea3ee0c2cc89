//! A database to whose commits a test says what becomes of them.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use slack_installs::backend::{Backend, Change, Cursor, Error, Key, Page, Partition, Row, Slot};

/// What becomes of one commit.
pub(crate) enum Fate {
    /// It is refused, as if a row had moved.
    Conflict,
    /// It is refused, as what no database takes.
    Malformed,
    /// It is carried out or not, then this happens, and its answer is lost.
    Lost { done: bool, then: Then },
}

/// What happens before a caller is told.
pub(crate) type Then = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Counts what it is asked for, and treats the next commits as it is told to. A commit of no
/// changes is neither counted nor treated.
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

    /// With pages of a scan of so many rows at most.
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

    /// Treats the next commits so, in this order.
    pub(crate) fn next(&self, fates: impl IntoIterator<Item = Fate>) {
        self.fates().extend(fates);
    }

    /// Fails so many reads from now on.
    pub(crate) fn fail_reads(&self, reads: usize) {
        self.failing_reads.store(reads, Ordering::SeqCst);
    }

    /// How many commits it was asked for.
    pub(crate) fn commits(&self) -> usize {
        self.commits.load(Ordering::SeqCst)
    }

    /// How often it was asked for what is due.
    pub(crate) fn dues(&self) -> usize {
        self.dues.load(Ordering::SeqCst)
    }

    /// The most rows of a scan, or of what is due, that it was asked for at once.
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

    async fn scan(&self, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        self.most_asked.fetch_max(limit, Ordering::SeqCst);
        self.inner.scan(from, limit.min(self.longest_page)).await
    }

    async fn due(&self, now: SystemTime, limit: usize) -> Result<Vec<(Key, Row)>, Error> {
        self.dues.fetch_add(1, Ordering::SeqCst);
        self.most_asked.fetch_max(limit, Ordering::SeqCst);
        self.inner.due(now, limit).await
    }
}
