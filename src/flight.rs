//! A flight: the work from the decision to ask Slack for tokens until these tokens are saved.
//!
//! Until the tokens are saved, this process has the only copy of them. So what the save needs is
//! made sure of before the call to Slack, and kept until the flight ends.

use std::any::Any;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

tokio::task_local! {
    static FLIGHT: Flight;
}

/// What is kept for the length of one flight. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Flight(Arc<Mutex<Vec<Arc<dyn Any + Send + Sync>>>>);

impl Flight {
    /// Returns the flight that the caller is a part of.
    pub(crate) fn current() -> Option<Self> {
        FLIGHT.try_with(Self::clone).ok()
    }

    /// Returns the value of this type that `is_own` accepts. If there is none, keeps a new one.
    pub(crate) fn keep<T: Any + Send + Sync>(
        &self,
        is_own: impl Fn(&T) -> bool,
        new: impl FnOnce() -> T,
    ) -> Arc<T> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut of_type = kept.iter().filter_map(|it| Arc::clone(it).downcast().ok());
        if let Some(own) = of_type.find(|it| is_own(it)) {
            return own;
        }
        let new = Arc::new(new());
        kept.push(Arc::clone(&new) as _);
        new
    }
}

/// Makes this work a part of the caller's flight, or else a flight of its own. A task that
/// continues a flight is spawned with it.
pub(crate) fn fly<F: Future>(work: F) -> impl Future<Output = F::Output> {
    FLIGHT.scope(Flight::current().unwrap_or_default(), work)
}
