//! Backends that behave badly on purpose.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use slack_installs::backend::{
    Backend, Change, Cursor, Error, Key, Lane, Page, Partition, Queue, Row, Scope, Slot,
};
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinHandle;

/// Counts commits, and loses requests or answers when it is told to.
#[derive(Clone, Debug)]
pub(crate) struct Unreliable {
    inner: Arc<dyn Backend>,
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    down: AtomicBool,
    unreadable: AtomicBool,
    commits: AtomicUsize,
    lost_commits: AtomicUsize,
    lost_answers: AtomicUsize,
}

impl Unreliable {
    pub(crate) fn new(inner: Arc<dyn Backend>) -> Self {
        Self {
            inner,
            faults: Arc::default(),
        }
    }

    /// Fails every call from now on, or none.
    pub(crate) fn set_down(&self, down: bool) {
        self.faults.down.store(down, Ordering::SeqCst);
    }

    /// Fails every read of named rows from now on, or none; what is due is still found.
    pub(crate) fn set_unreadable(&self, unreadable: bool) {
        self.faults.unreadable.store(unreadable, Ordering::SeqCst);
    }

    /// Does not carry out the next commits, and says that it does not know.
    pub(crate) fn lose_commits(&self, commits: usize) {
        self.faults.lost_commits.store(commits, Ordering::SeqCst);
    }

    /// Carries out the next commits, and says that it does not know.
    pub(crate) fn lose_answers(&self, answers: usize) {
        self.faults.lost_answers.store(answers, Ordering::SeqCst);
    }

    /// How many commits were asked for.
    pub(crate) fn commits(&self) -> usize {
        self.faults.commits.load(Ordering::SeqCst)
    }

    fn check(&self) -> Result<(), Error> {
        if self.faults.down.load(Ordering::SeqCst) {
            Err(Error::Unavailable("down on purpose".into()))
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl Backend for Unreliable {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        self.check()?;
        if self.faults.unreadable.load(Ordering::SeqCst) {
            return Err(Error::Unavailable("read lost on purpose".into()));
        }
        self.inner.read(partition, slots).await
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        self.check()?;
        self.faults.commits.fetch_add(1, Ordering::SeqCst);
        if take_one(&self.faults.lost_commits) {
            return Err(Error::Unavailable("commit lost on purpose".into()));
        }
        let outcome = self.inner.commit(partition, changes).await;
        if take_one(&self.faults.lost_answers) {
            Err(Error::Unavailable("answer lost on purpose".into()))
        } else {
            outcome
        }
    }

    async fn scan(&self, scope: &Scope, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        self.check()?;
        self.inner.scan(scope, from, limit).await
    }

    async fn due(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        self.check()?;
        self.inner.due(queue, now, from, limit).await
    }
}

fn take_one(left: &AtomicUsize) -> bool {
    let taken = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
        left.checked_sub(1)
    });
    taken.is_ok()
}

/// Lets something else happen between the next read and whatever its caller does then.
pub(crate) struct Interrupted {
    inner: Arc<dyn Backend>,
    meanwhile: Mutex<Option<Meanwhile>>,
}

type Meanwhile = Box<dyn FnOnce() -> JoinHandle<()> + Send>;

impl Interrupted {
    pub(crate) fn new(inner: Arc<dyn Backend>) -> Self {
        Self {
            inner,
            meanwhile: Mutex::default(),
        }
    }

    pub(crate) fn meanwhile(&self, task: impl FnOnce() -> JoinHandle<()> + Send + 'static) {
        *self
            .meanwhile
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Box::new(task));
    }
}

impl fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interrupted")
    }
}

#[async_trait]
impl Backend for Interrupted {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        let rows = self.inner.read(partition, slots).await;
        let task = self
            .meanwhile
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(task) = task {
            task().await.expect("what happens meanwhile ends well");
        }
        rows
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        self.inner.commit(partition, changes).await
    }

    async fn scan(&self, scope: &Scope, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        self.inner.scan(scope, from, limit).await
    }

    async fn due(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        self.inner.due(queue, now, from, limit).await
    }
}

/// A database whose index of what is due stays as it was.
#[derive(Debug)]
pub(crate) struct Lagging {
    inner: Arc<dyn Backend>,
    due: Vec<(Key, Row)>,
}

impl Lagging {
    /// The index of this app as it is at this time.
    pub(crate) async fn since(inner: Arc<dyn Backend>, app: &str, now: SystemTime) -> Self {
        let mut due = Vec::new();
        for lane in Lane::ALL {
            let queue = Queue::new(app, lane).expect("an app's name");
            let page = inner.due(&queue, now, None, usize::MAX).await;
            due.extend(page.expect("answers").rows);
        }
        Self { inner, due }
    }
}

#[async_trait]
impl Backend for Lagging {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        self.inner.read(partition, slots).await
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        self.inner.commit(partition, changes).await
    }

    async fn scan(&self, scope: &Scope, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        self.inner.scan(scope, from, limit).await
    }

    async fn due(
        &self,
        queue: &Queue,
        _: SystemTime,
        _: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        // One page is all of it.
        let waits = |(key, row): &&(Key, Row)| queue.contains(&key.partition, row);
        let rows = self.due.iter().filter(waits).take(limit);
        Ok(Page {
            rows: rows.cloned().collect(),
            ..Page::default()
        })
    }
}

/// Holds the next reads until so many have come, so that all of them see the same.
#[derive(Debug)]
pub(crate) struct Gathering {
    inner: Arc<dyn Backend>,
    reads: Semaphore,
    together: Barrier,
}

impl Gathering {
    pub(crate) fn new(inner: Arc<dyn Backend>, together: usize) -> Self {
        Self {
            inner,
            reads: Semaphore::new(0),
            together: Barrier::new(together),
        }
    }

    /// Holds so many reads from now on.
    pub(crate) fn gather(&self, reads: usize) {
        self.reads.add_permits(reads);
    }
}

#[async_trait]
impl Backend for Gathering {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        let rows = self.inner.read(partition, slots).await;
        if let Ok(read) = self.reads.try_acquire() {
            read.forget();
            self.together.wait().await;
        }
        rows
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        self.inner.commit(partition, changes).await
    }

    async fn scan(&self, scope: &Scope, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        self.inner.scan(scope, from, limit).await
    }

    async fn due(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        self.inner.due(queue, now, from, limit).await
    }
}

/// Answers a scan with small pages, whatever is asked for.
#[derive(Debug)]
pub(crate) struct Paged(pub(crate) Arc<dyn Backend>);

#[async_trait]
impl Backend for Paged {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        self.0.read(partition, slots).await
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        self.0.commit(partition, changes).await
    }

    async fn scan(&self, scope: &Scope, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        self.0.scan(scope, from, limit.min(4)).await
    }

    async fn due(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        self.0.due(queue, now, from, limit).await
    }
}
