//! A backend that loses requests and responses on purpose, and that stops responding.

use std::future::pending;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;

use crate::backend::{Backend, Change, Cursor, Error, Page, Partition, Queue, Row, Scope, Slot};

/// Loses requests and responses of the backend that it wraps, each on its own schedule. A lost call
/// returns [`Error::Unavailable`].
///
/// A commit without changes is neither lost nor counted, because it needs no request to a database.
///
/// Whether the nth call fails does not depend on the calls before it. So a test that makes its
/// calls one after the other gets the same faults each time.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use slack_installs::backend::{Backend, Change, Error, MemoryBackend, Partition};
/// use slack_installs::testing::{Faults, Flaky};
///
/// let faults = Faults { lost_answers: 2, ..Faults::none() };
/// let backend = Flaky::new(MemoryBackend::default(), faults);
/// let (tenant, clear) = (Partition::new("app/T1")?, [Change::Clear]);
/// backend.commit(&tenant, &clear).await?;
/// assert!(matches!(backend.commit(&tenant, &clear).await, Err(Error::Unavailable(_))));
/// assert_eq!(backend.counts().lost_answers, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Flaky<B> {
    inner: B,
    state: Mutex<State>,
}

/// Which calls a [`Flaky`] loses. Each field counts calls since the last [`Flaky::set_faults`]. 0
/// loses no call, and 1 loses every call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Faults {
    /// Every nth commit is applied, and its response is lost.
    pub lost_answers: u64,
    /// Every nth commit is not applied. It takes precedence over a lost response.
    pub lost_commits: u64,
    /// Every nth `read`, `scan` or `due` fails.
    pub lost_reads: u64,
}

impl Faults {
    /// Returns faults that lose no call.
    #[must_use]
    pub fn none() -> Self {
        Self {
            lost_answers: 0,
            lost_commits: 0,
            lost_reads: 0,
        }
    }
}

impl Default for Faults {
    /// Returns three primes, so that all combinations occur, and faults are frequent.
    fn default() -> Self {
        Self {
            lost_answers: 3,
            lost_commits: 5,
            lost_reads: 7,
        }
    }
}

/// The calls that a [`Flaky`] received and lost so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counts {
    /// The commits that were requested.
    pub commits: u64,
    /// The commits that reached the wrapped backend and whose response was lost.
    pub lost_answers: u64,
    /// The commits that did not reach the wrapped backend.
    pub lost_commits: u64,
    /// The reads that failed.
    pub lost_reads: u64,
    /// The calls of `read`, `scan` and `due`.
    pub reads: u64,
}

#[derive(Debug)]
struct State {
    faults: Faults,
    counts: Counts,
    /// The commits since the faults were set.
    commits: u64,
    reads: u64,
    /// How many calls still get a response.
    before_hang: u64,
}

/// What happens to one commit.
enum Fate {
    Answered,
    LostAnswer,
    LostCommit,
}

impl<B> Flaky<B> {
    /// Wraps a backend, and loses its calls by this schedule.
    #[must_use]
    pub fn new(inner: B, faults: Faults) -> Self {
        let state = State {
            faults,
            counts: Counts::default(),
            commits: 0,
            reads: 0,
            before_hang: u64::MAX,
        };
        Self {
            inner,
            state: Mutex::new(state),
        }
    }

    /// Starts another schedule. The next call is its first.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.state();
        *state = State {
            faults,
            counts: state.counts,
            commits: 0,
            reads: 0,
            before_hang: u64::MAX,
        };
    }

    /// Stops responding after this many more calls: every later call waits forever. It does not
    /// reach the wrapped backend, and is not counted. [`set_faults`](Self::set_faults) ends this
    /// for new calls.
    ///
    /// Test with it that your handlers respond in time while the database does not.
    pub fn hang_after(&self, calls: u64) {
        self.state().before_hang = calls;
    }

    /// Returns the counts of requested and lost calls since the backend was wrapped.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Returns the wrapped backend, which loses nothing.
    #[must_use]
    pub fn inner(&self) -> &B {
        &self.inner
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self) -> Fate {
        let mut state = self.state();
        state.commits += 1;
        state.counts.commits += 1;
        let State {
            faults,
            counts,
            commits,
            ..
        } = &mut *state;
        if falls_on(faults.lost_commits, *commits) {
            counts.lost_commits += 1;
            return Fate::LostCommit;
        }
        if falls_on(faults.lost_answers, *commits) {
            counts.lost_answers += 1;
            return Fate::LostAnswer;
        }
        Fate::Answered
    }

    fn lose_read(&self) -> Result<(), Error> {
        let mut state = self.state();
        state.reads += 1;
        state.counts.reads += 1;
        if falls_on(state.faults.lost_reads, state.reads) {
            state.counts.lost_reads += 1;
            return Err(lost());
        }
        Ok(())
    }
}

impl<B: Backend> Flaky<B> {
    async fn hang_in_turn(&self) {
        let is_hanging = {
            let mut state = self.state();
            let is_hanging = state.before_hang == 0;
            state.before_hang = state.before_hang.saturating_sub(1);
            is_hanging
        };
        if is_hanging {
            pending::<()>().await;
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Backend> Backend for Flaky<B> {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        self.hang_in_turn().await;
        self.lose_read()?;
        self.inner.read(partition, slots).await
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        if changes.is_empty() {
            // An empty commit makes no request that could be lost.
            return self.inner.commit(partition, changes).await;
        }
        self.hang_in_turn().await;
        match self.fate() {
            Fate::Answered => self.inner.commit(partition, changes).await,
            Fate::LostAnswer => {
                // The outcome is dropped, even a conflict.
                let _ = self.inner.commit(partition, changes).await;
                Err(lost())
            }
            Fate::LostCommit => Err(lost()),
        }
    }

    async fn scan(&self, scope: &Scope, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        self.hang_in_turn().await;
        self.lose_read()?;
        self.inner.scan(scope, from, limit).await
    }

    async fn due(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        self.hang_in_turn().await;
        self.lose_read()?;
        self.inner.due(queue, now, from, limit).await
    }
}

/// Returns whether the nth call is a multiple of `every`; never if `every` is 0.
fn falls_on(every: u64, nth: u64) -> bool {
    every != 0 && nth.is_multiple_of(every)
}

fn lost() -> Error {
    Error::Unavailable("lost on purpose by Flaky".into())
}
