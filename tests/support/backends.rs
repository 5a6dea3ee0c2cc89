//! Backends that fail on purpose.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use slack_installs::backend::{Backend, Error, Key, Lane, Page, Queue, Row};
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinHandle;

use super::hooked::{Call, Hooked, Hooks, lost};

/// Counts commits, and loses requests or responses on demand.
pub(crate) type Unreliable = Hooked<Faults>;

#[derive(Default)]
pub(crate) struct Faults {
    down: AtomicBool,
    unreadable: AtomicBool,
    commits: AtomicUsize,
    lost_commits: AtomicUsize,
    lost_answers: AtomicUsize,
}

impl Faults {
    /// Sets whether every call fails.
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// Sets whether every read of named rows fails. Due rows are still listed.
    pub(crate) fn set_unreadable(&self, unreadable: bool) {
        self.unreadable.store(unreadable, Ordering::SeqCst);
    }

    /// Loses this many next commits: they are not applied, and their outcome is reported as
    /// unknown.
    pub(crate) fn lose_commits(&self, commits: usize) {
        self.lost_commits.store(commits, Ordering::SeqCst);
    }

    /// Loses the responses of this many next commits: they are applied, and their outcome is
    /// reported as unknown.
    pub(crate) fn lose_answers(&self, answers: usize) {
        self.lost_answers.store(answers, Ordering::SeqCst);
    }

    /// Returns the number of commits that were requested.
    pub(crate) fn commits(&self) -> usize {
        self.commits.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Hooks for Faults {
    async fn before(&self, call: Call<'_>) -> Result<(), Error> {
        let is_lost = self.down.load(Ordering::SeqCst)
            || match call {
                Call::Read(_) => self.unreadable.load(Ordering::SeqCst),
                Call::Commit(_) => {
                    self.commits.fetch_add(1, Ordering::SeqCst);
                    take_one(&self.lost_commits)
                }
                _ => false,
            };
        if is_lost { Err(lost()) } else { Ok(()) }
    }

    async fn after(&self, call: Call<'_>) -> Result<(), Error> {
        let is_lost = matches!(call, Call::Commit(_)) && take_one(&self.lost_answers);
        if is_lost { Err(lost()) } else { Ok(()) }
    }
}

/// Decrements the counter. Returns `false` if it is already zero.
pub(crate) fn take_one(left: &AtomicUsize) -> bool {
    let taken = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
        left.checked_sub(1)
    });
    taken.is_ok()
}

/// Runs something between the next read and what its caller does after it.
pub(crate) type Interrupted = Hooked<Interruption>;

#[derive(Default)]
pub(crate) struct Interruption(Mutex<Option<Meanwhile>>);

type Meanwhile = Box<dyn FnOnce() -> JoinHandle<()> + Send>;

impl Interruption {
    pub(crate) fn meanwhile(&self, task: impl FnOnce() -> JoinHandle<()> + Send + 'static) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(task));
    }
}

#[async_trait]
impl Hooks for Interruption {
    async fn after(&self, call: Call<'_>) -> Result<(), Error> {
        if let Call::Read(_) = call {
            let task = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(task) = task {
                task().await.expect("the task of the interruption succeeds");
            }
        }
        Ok(())
    }
}

/// A database whose index of due rows is outdated: it does not change.
pub(crate) struct Lagging(Vec<(Key, Row)>);

impl Lagging {
    /// Takes the index of this app at this time.
    pub(crate) async fn since(inner: Arc<dyn Backend>, app: &str, now: SystemTime) -> Hooked<Self> {
        let mut due = Vec::new();
        for lane in Lane::ALL {
            let queue = Queue::new(app, lane).expect("an app's name");
            let page = inner.due(&queue, now, None, usize::MAX).await;
            due.extend(page.expect("available").rows);
        }
        Hooked::over(inner, Self(due))
    }
}

impl Hooks for Lagging {
    fn page(&self, call: Call<'_>) -> Option<Page> {
        let Call::Due(queue, limit) = call else {
            return None;
        };
        // The first page has all rows.
        let waits = |(key, row): &&(Key, Row)| queue.contains(&key.partition, row);
        let rows = self.0.iter().filter(waits).take(limit);
        Some(Page {
            rows: rows.cloned().collect(),
            ..Page::default()
        })
    }
}

/// Holds the next reads until all of them have arrived, so that they all see the same rows.
pub(crate) struct Gathering {
    reads: Semaphore,
    together: Barrier,
}

impl Gathering {
    pub(crate) fn over(inner: Arc<dyn Backend>, together: usize) -> Hooked<Self> {
        let hooks = Self {
            reads: Semaphore::new(0),
            together: Barrier::new(together),
        };
        Hooked::over(inner, hooks)
    }

    /// Holds this many reads, starting with the next one.
    pub(crate) fn gather(&self, reads: usize) {
        self.reads.add_permits(reads);
    }
}

#[async_trait]
impl Hooks for Gathering {
    async fn after(&self, call: Call<'_>) -> Result<(), Error> {
        if let (Call::Read(_), Ok(read)) = (call, self.reads.try_acquire()) {
            read.forget();
            self.together.wait().await;
        }
        Ok(())
    }
}

/// Returns small pages from a scan, whatever limit the caller requests.
pub(crate) struct Paged(pub(crate) usize);

impl Hooks for Paged {
    fn longest_page(&self) -> usize {
        self.0
    }
}
