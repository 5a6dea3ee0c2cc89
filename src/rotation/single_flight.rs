//! Runs one refresh per chain and process, on its own task. Callers only wait for it.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use super::error::Error;
use crate::store::{AuditContext, ChainKey, StoredChain};

/// The outcome of a refresh: the stored chain or an error.
pub(super) type Outcome = Result<Arc<StoredChain>, Error>;

/// Waits for the outcome of a task.
pub(super) struct Waiter(watch::Receiver<Option<Outcome>>);

impl Waiter {
    /// Waits for the outcome until the deadline.
    ///
    /// # Errors
    ///
    /// The task's error; [`Error::Busy`] after the deadline; [`Error::Interrupted`] if the task
    /// ended without an outcome.
    ///
    /// # Cancel safety
    ///
    /// The task continues if this future is dropped.
    pub(super) async fn outcome(mut self, deadline: Instant) -> Outcome {
        let outcome = self.0.wait_for(Option::is_some);
        match tokio::time::timeout_at(deadline, outcome).await {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or(Err(Error::Interrupted)),
            Ok(Err(_)) => Err(Error::Interrupted),
            Err(_) => Err(Error::Busy),
        }
    }
}

/// The running refreshes of one process.
#[derive(Clone)]
pub(super) struct SingleFlight {
    tasks: Arc<Mutex<Tasks>>,
    /// The number of [`LateTask`]s.
    late: watch::Sender<usize>,
}

impl Default for SingleFlight {
    fn default() -> Self {
        Self {
            tasks: Arc::default(),
            late: watch::Sender::new(0),
        }
    }
}

/// Counts a task that waits for a late response after its refresh has ended.
pub(super) struct LateTask(watch::Sender<usize>);

impl Drop for LateTask {
    fn drop(&mut self) {
        self.0.send_modify(|late| *late -= 1);
    }
}

#[derive(Default)]
struct Tasks {
    running: HashMap<ChainKey, watch::Receiver<Option<Outcome>>>,
    is_closed: bool,
}

impl SingleFlight {
    /// Joins the running task of this chain, or starts one.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`] after [`close`](Self::close), if no task of the chain is running.
    pub(super) fn join<F>(&self, key: &ChainKey, task: impl FnOnce() -> F) -> Result<Waiter, Error>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut tasks = self.tasks();
        if let Some(running) = tasks.running.get(key) {
            return Ok(Waiter(running.clone()));
        }
        if tasks.is_closed {
            return Err(Error::Interrupted);
        }
        let (sender, waiter) = watch::channel(None);
        tasks.running.insert(key.clone(), waiter.clone());
        drop(tasks);
        let leader = Leader {
            flights: self.clone(),
            key: key.clone(),
            outcome: None,
            sender,
        };
        // Others who wait for the task have opened the chain themselves, each on their own behalf.
        let task = AuditContext::current().scope(task());
        drop(tokio::spawn(async move {
            leader.finish(task.await);
        }));
        Ok(Waiter(waiter))
    }

    pub(super) fn is_running(&self, key: &ChainKey) -> bool {
        self.tasks().running.contains_key(key)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.tasks().is_closed
    }

    /// Stops new tasks and waits for the running ones. Returns `false` if some still run at the
    /// deadline.
    pub(super) async fn close(&self, deadline: Instant) -> bool {
        let running: Vec<_> = {
            let mut tasks = self.tasks();
            tasks.is_closed = true;
            tasks.running.values().cloned().collect()
        };
        for waiter in running {
            if let Err(Error::Busy) = Waiter(waiter).outcome(deadline).await {
                return false;
            }
        }
        let mut late = self.late.subscribe();
        let none = late.wait_for(|late| *late == 0);
        tokio::time::timeout_at(deadline, none).await.is_ok()
    }

    /// Returns a guard for which [`close`](Self::close) also waits.
    pub(super) fn late_task(&self) -> LateTask {
        self.late.send_modify(|late| *late += 1);
        LateTask(self.late.clone())
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        // No code panics while it holds the lock.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SingleFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SingleFlight({})", self.tasks().running.len())
    }
}

/// Frees the chain for the next task when the current one ends, also if it panics.
struct Leader {
    flights: SingleFlight,
    key: ChainKey,
    outcome: Option<Outcome>,
    sender: watch::Sender<Option<Outcome>>,
}

impl Leader {
    fn finish(mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        // Frees the chain before it sends the outcome, so that a waiter can start the next task.
        self.flights.tasks().running.remove(&self.key);
        // If there is no outcome, the channel closes and every waiter gets `Interrupted`.
        self.sender.send_replace(self.outcome.take());
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Wake, Waker};
    use std::time::Duration;

    use super::*;
    use crate::store::Credential;
    use crate::tenant::{InstallationKey, TeamId};

    fn key() -> ChainKey {
        ChainKey {
            credential: Credential::Bot,
            tenant: InstallationKey::workspace(
                TeamId::new("T0ALPHA0001").expect("the id is valid"),
            ),
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    /// Runs for this long, and then fails.
    async fn task(length: Duration) -> Outcome {
        tokio::time::sleep(length).await;
        Err(Error::not_installed(&key()))
    }

    #[tokio::test(start_paused = true)]
    async fn once_closed_a_task_can_be_joined_and_none_be_started() {
        let flights = SingleFlight::default();
        let begun = flights.join(&key(), || task(Duration::from_secs(3)));
        begun.expect("the task starts");
        assert!(!flights.close(soon()).await, "the task still runs");
        assert!(flights.is_closed());
        let joined = flights.join(&key(), pending::<Outcome>);
        let joined = joined.expect("the task still runs");
        assert!(flights.close(Instant::now() + Duration::from_secs(3)).await);
        let outcome = joined.outcome(Instant::now()).await;
        assert!(
            matches!(outcome, Err(Error::NotInstalled { .. })),
            "{outcome:?}"
        );
        let refused = flights.join(&key(), pending::<Outcome>);
        assert!(matches!(refused, Err(Error::Interrupted)));
    }

    #[tokio::test(start_paused = true)]
    async fn to_close_is_to_wait_for_every_late_task() {
        let flights = SingleFlight::default();
        let (one, two) = (flights.late_task(), flights.late_task());
        assert!(!flights.close(soon()).await);
        drop(one);
        assert!(!flights.close(soon()).await);
        drop(two);
        assert!(flights.close(soon()).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_ends_is_told_from_a_task_that_ends_without_an_outcome() {
        let flights = SingleFlight::default();
        let waiter = flights.join(&key(), || task(Duration::from_secs(3)));
        let outcome = waiter.expect("the task starts").outcome(soon()).await;
        assert!(matches!(outcome, Err(Error::Busy)), "{outcome:?}");
        tokio::time::sleep(Duration::from_secs(3)).await;
        let waiter = flights.join(&key(), || async {
            // Ends the task without a panic message.
            std::panic::resume_unwind(Box::new("the task ends"))
        });
        let outcome = waiter.expect("the task starts").outcome(soon()).await;
        assert!(matches!(outcome, Err(Error::Interrupted)), "{outcome:?}");
        assert!(!flights.is_running(&key()));
    }

    /// Starts the next task of the chain as soon as it gets an outcome.
    struct Next {
        flights: SingleFlight,
        started: AtomicBool,
    }

    impl Wake for Next {
        fn wake(self: Arc<Self>) {
            if !self.started.load(Ordering::SeqCst) {
                let is_free = !self.flights.is_running(&key());
                self.started.store(is_free, Ordering::SeqCst);
                let waiter = self.flights.join(&key(), pending::<Outcome>);
                drop(waiter.expect("the task is joined or started"));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gets_an_outcome_can_start_the_next_task_and_nobody_ends_that() {
        let flights = SingleFlight::default();
        let waiter = flights.join(&key(), || task(Duration::ZERO));
        let next = Arc::new(Next {
            flights: flights.clone(),
            started: AtomicBool::new(false),
        });
        let waker = Waker::from(Arc::clone(&next));
        let mut outcome = pin!(waiter.expect("the task starts").outcome(soon()));
        let polled = outcome.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(next.started.load(Ordering::SeqCst));
        assert!(flights.is_running(&key()), "the next task runs");
    }
}
