//! One caller at a time does what all wait for, and those who waited share its failure.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, MutexGuard};

/// Hands out turns. Without it each of a hundred callers would try in vain for itself, one after
/// the other, and the last wait for all of them.
#[derive(Default)]
pub(super) struct Turns {
    turn: Mutex<()>,
    begun: AtomicU64,
    /// The last try that failed, by its number.
    failed: AtomicU64,
}

pub(super) struct Turn<'a> {
    turns: &'a Turns,
    /// Tries that had begun when this caller came.
    came: u64,
    _held: MutexGuard<'a, ()>,
}

impl Turns {
    /// Waits for the turn: two tries of others at most, of which the first had begun before.
    pub(super) async fn take(&self) -> Turn<'_> {
        let came = self.begun.load(Ordering::SeqCst);
        Turn {
            turns: self,
            came,
            _held: self.turn.lock().await,
        }
    }
}

impl Turn<'_> {
    /// Whether somebody else has begun and failed while this caller waited.
    pub(super) fn is_in_vain(&self) -> bool {
        self.turns.failed.load(Ordering::SeqCst) > self.came
    }

    /// Does it, for all who wait.
    pub(super) async fn attempt<T, E>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let number = self.turns.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let outcome = work.await;
        if outcome.is_err() {
            self.turns.failed.store(number, Ordering::SeqCst);
        }
        outcome
    }
}
