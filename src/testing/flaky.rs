//! A backend that loses requests and answers on purpose.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;

use crate::backend::{Backend, Change, Cursor, Error, Page, Partition, Queue, Row, Scope, Slot};

/// Loses requests and answers of the backend inside it, each on its own schedule, as
/// [`Error::Unavailable`].
///
/// A commit of no changes is neither lost nor counted: it asks nothing of a database.
///
/// The nth call fails whatever the calls before it did, so a test that makes its calls one after
/// the other meets the same faults each time.
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

/// Which calls a [`Flaky`] loses. Each field counts from the last [`Flaky::set_faults`]; 0 is
/// never, 1 is always.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Faults {
    /// Every nth commit is carried out, and its answer lost.
    pub lost_answers: u64,
    /// Every nth commit is not carried out. Goes before a lost answer.
    pub lost_commits: u64,
    /// Every nth `read`, `scan` or `due` fails.
    pub lost_reads: u64,
}

impl Faults {
    /// None at all.
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
    /// Three primes, so that all combinations come up, and something fails often.
    fn default() -> Self {
        Self {
            lost_answers: 3,
            lost_commits: 5,
            lost_reads: 7,
        }
    }
}

/// What a [`Flaky`] has done so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counts {
    /// Commits asked for.
    pub commits: u64,
    /// Of these, how many were carried out, or refused, without an answer.
    pub lost_answers: u64,
    /// Of these, how many never reached the backend inside.
    pub lost_commits: u64,
    /// Of the reads, how many failed.
    pub lost_reads: u64,
    /// Calls of `read`, `scan` and `due`.
    pub reads: u64,
}

#[derive(Debug)]
struct State {
    faults: Faults,
    counts: Counts,
    /// Calls since the faults were set.
    commits: u64,
    reads: u64,
}

/// What becomes of one commit.
enum Fate {
    Answered,
    LostAnswer,
    LostCommit,
}

impl<B> Flaky<B> {
    /// Loses calls of this backend.
    #[must_use]
    pub fn new(inner: B, faults: Faults) -> Self {
        let state = State {
            faults,
            counts: Counts::default(),
            commits: 0,
            reads: 0,
        };
        Self {
            inner,
            state: Mutex::new(state),
        }
    }

    /// Starts another schedule, with the next call as its first.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.state();
        *state = State {
            faults,
            counts: state.counts,
            commits: 0,
            reads: 0,
        };
    }

    /// What was asked for and what was lost, since the beginning.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// The backend inside, which loses nothing.
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

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Backend> Backend for Flaky<B> {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        self.lose_read()?;
        self.inner.read(partition, slots).await
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        if changes.is_empty() {
            // There is no request that could be lost.
            return self.inner.commit(partition, changes).await;
        }
        match self.fate() {
            Fate::Answered => self.inner.commit(partition, changes).await,
            Fate::LostAnswer => {
                // Whatever it was, a conflict included, nobody gets to know.
                let _ = self.inner.commit(partition, changes).await;
                Err(lost())
            }
            Fate::LostCommit => Err(lost()),
        }
    }

    async fn scan(&self, scope: &Scope, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
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
        self.lose_read()?;
        self.inner.due(queue, now, from, limit).await
    }
}

/// Whether the nth of calls is one of those that come every so many.
fn falls_on(every: u64, nth: u64) -> bool {
    every != 0 && nth.is_multiple_of(every)
}

fn lost() -> Error {
    Error::Unavailable("lost on purpose".into())
}
