//! A database whose next commits fail as a test chooses.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use slack_installs::backend::{Backend, Error};

use super::backends::take_one;
use super::hooked::{Call, Hooked, Hooks, lost};

/// The fate of one commit.
pub(crate) enum Fate {
    /// The commit fails with a conflict.
    Conflict,
    /// The commit fails as malformed.
    Malformed,
    /// The future runs first. Then the commit is applied, unless it now conflicts.
    Overtaken(Then),
    /// If `done`, the commit is applied. Then `then` runs, and the caller gets no response.
    Lost { done: bool, then: Then },
}

/// A future that runs before the caller gets an error.
pub(crate) type Then = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Counts calls, and fails the next commits as the test chose. A commit without changes is not
/// counted and does not fail.
pub(crate) type Meddling = Hooked<Fates>;

impl Meddling {
    /// Returns a database whose scans return at most this many rows in a page.
    pub(crate) fn paged(inner: Arc<dyn Backend>, longest_page: usize) -> Self {
        let fates = Fates {
            longest_page: Some(longest_page),
            ..Fates::default()
        };
        Self::over(inner, fates)
    }
}

#[derive(Default)]
pub(crate) struct Fates {
    fates: Mutex<VecDeque<Fate>>,
    /// Set while a commit runs whose response will be lost.
    loses_answer: Mutex<Option<Then>>,
    failing_reads: AtomicUsize,
    longest_page: Option<usize>,
    commits: AtomicUsize,
    dues: AtomicUsize,
    most_asked: AtomicUsize,
}

impl Fates {
    /// Sets the fates of the next commits, in this order.
    pub(crate) fn next(&self, fates: impl IntoIterator<Item = Fate>) {
        self.fates().extend(fates);
    }

    /// Fails this many of the next reads.
    pub(crate) fn fail_reads(&self, reads: usize) {
        self.failing_reads.store(reads, Ordering::SeqCst);
    }

    /// Returns the number of commits so far.
    pub(crate) fn commits(&self) -> usize {
        self.commits.load(Ordering::SeqCst)
    }

    /// Returns the number of calls of `due` so far.
    pub(crate) fn dues(&self) -> usize {
        self.dues.load(Ordering::SeqCst)
    }

    /// Returns the largest limit of a `scan` or a `due` so far.
    pub(crate) fn most_asked(&self) -> usize {
        self.most_asked.load(Ordering::SeqCst)
    }

    fn fates(&self) -> MutexGuard<'_, VecDeque<Fate>> {
        self.fates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Hooks for Fates {
    async fn before(&self, call: Call<'_>) -> Result<(), Error> {
        match call {
            Call::Read(_) if take_one(&self.failing_reads) => return Err(lost()),
            Call::Read(_) | Call::Commit([]) => return Ok(()),
            Call::Scan(_, limit) | Call::Due(_, limit) => {
                self.most_asked.fetch_max(limit, Ordering::SeqCst);
                let is_due = matches!(call, Call::Due(..));
                self.dues.fetch_add(usize::from(is_due), Ordering::SeqCst);
                return Ok(());
            }
            Call::Commit(_) => self.commits.fetch_add(1, Ordering::SeqCst),
        };
        let fate = self.fates().pop_front();
        match fate {
            None => Ok(()),
            Some(Fate::Conflict) => Err(Error::Conflict),
            Some(Fate::Malformed) => Err(Error::Malformed("refused on purpose".into())),
            Some(Fate::Overtaken(then)) => {
                then.await;
                Ok(())
            }
            Some(Fate::Lost { done: false, then }) => {
                then.await;
                Err(lost())
            }
            Some(Fate::Lost { done: true, then }) => {
                *self.loses_answer.lock().expect("no panic") = Some(then);
                Ok(())
            }
        }
    }

    async fn after(&self, _: Call<'_>) -> Result<(), Error> {
        let then = self.loses_answer.lock().expect("no panic").take();
        let Some(then) = then else {
            return Ok(());
        };
        then.await;
        Err(lost())
    }

    fn longest_page(&self) -> usize {
        self.longest_page.unwrap_or(usize::MAX)
    }
}
