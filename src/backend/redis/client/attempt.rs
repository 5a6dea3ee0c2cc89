//! Lets one caller at a time do work that all callers need. The callers that waited share its
//! failure.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, MutexGuard};

/// Allows one attempt at a time. Without it, each of a hundred callers would fail by itself, one
/// after the other, and the last would wait for all of them.
#[derive(Default)]
pub(super) struct SingleAttempt {
    lock: Mutex<()>,
    begun: AtomicU64,
    /// The number of the last attempt that failed.
    failed: AtomicU64,
}

pub(super) struct Permit<'a> {
    attempts: &'a SingleAttempt,
    /// How many attempts had begun when this caller arrived.
    came: u64,
    _held: MutexGuard<'a, ()>,
}

impl SingleAttempt {
    /// Waits for the permit. That takes at most two attempts of other callers, of which the first
    /// had already begun.
    pub(super) async fn acquire(&self) -> Permit<'_> {
        let came = self.begun.load(Ordering::SeqCst);
        Permit {
            attempts: self,
            came,
            _held: self.lock.lock().await,
        }
    }
}

impl Permit<'_> {
    /// Returns whether an attempt of another caller began and failed while this caller waited.
    pub(super) fn has_just_failed(&self) -> bool {
        self.attempts.failed.load(Ordering::SeqCst) > self.came
    }

    /// Runs the attempt for all callers that wait.
    pub(super) async fn run<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let number = self.attempts.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let outcome = work.await;
        if outcome.is_err() {
            self.attempts.failed.store(number, Ordering::SeqCst);
        }
        outcome
    }
}
