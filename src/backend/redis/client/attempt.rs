//! One caller at a time does what all wait for, and those who waited share its failure.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, MutexGuard};

/// Lets one caller at a time try. Without it each of a hundred callers would fail for itself, one
/// after the other, and the last would wait for all of them.
#[derive(Default)]
pub(super) struct SingleAttempt {
    lock: Mutex<()>,
    begun: AtomicU64,
    /// The last attempt that failed, by its number.
    failed: AtomicU64,
}

pub(super) struct Permit<'a> {
    attempts: &'a SingleAttempt,
    /// Attempts that had begun when this caller came.
    came: u64,
    _held: MutexGuard<'a, ()>,
}

impl SingleAttempt {
    /// Waits for the permit: two attempts of others at most, of which the first had begun before.
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
    /// Whether another caller has begun and failed while this one waited.
    pub(super) fn has_just_failed(&self) -> bool {
        self.attempts.failed.load(Ordering::SeqCst) > self.came
    }

    /// Tries, for all who wait.
    pub(super) async fn run<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let number = self.attempts.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let outcome = work.await;
        if outcome.is_err() {
            self.attempts.failed.store(number, Ordering::SeqCst);
        }
        outcome
    }
}
