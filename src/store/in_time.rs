//! Ends a wait for the store, for callers that must respond in time.

use std::future::Future;

use tokio::time::{Instant, timeout_at};

use super::Error;

/// Waits for the store until the deadline.
///
/// # Errors
///
/// The store's error; [`Error::Unavailable`] after the deadline. A change may then have been
/// applied.
pub(crate) async fn in_time<T, E: From<Error>>(
    deadline: Instant,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match timeout_at(deadline, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::Unavailable(NO_RESPONSE.into()).into()),
    }
}

const NO_RESPONSE: &str = "the store did not respond within the caller's time";
