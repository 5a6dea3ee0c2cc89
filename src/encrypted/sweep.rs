//! Removes rows whose time is over: OAuth states, and requests that were handled.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use super::EncryptedStore;
use crate::backend::{Backend, Lane};
use crate::error_chain::error_chain;
use crate::store::Error;

impl<B: Backend> EncryptedStore<B> {
    /// Removes expired states in the background, at most once in [`SWEEP_EVERY`]: a crawler that
    /// opens the install page again and again leaves nothing behind.
    pub(super) fn sweep_now_and_then(&self) {
        let now = Instant::now();
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_some_and(|swept| now.duration_since(swept) < SWEEP_EVERY) {
            return;
        }
        *swept = Some(now);
        let store = self.clone();
        drop(tokio::spawn(async move {
            if let Err(error) = store.sweep_expired_states().await {
                tracing::warn!(
                    error = error_chain(&error),
                    "expired OAuth states could not be removed"
                );
            }
        }));
    }

    /// Removes OAuth states that expired without a callback, and requests whose time of being
    /// remembered is over. Starting a flow and remembering a request do this by themselves now
    /// and then; an app with little traffic has no need to call it.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if the database does not answer. Some may be gone then.
    pub async fn sweep_expired_states(&self) -> Result<usize, Error> {
        let states = self.sweep_lane(Lane::State).await?;
        Ok(states + self.sweep_lane(Lane::Handled).await?)
    }

    async fn sweep_lane(&self, lane: Lane) -> Result<usize, Error> {
        let now = self.clock.now();
        let (mut swept, mut from) = (0, None);
        for _ in 0..SWEEPS {
            let page = self.driver.due(lane, now, from, SWEEP_AT_ONCE).await?;
            for (key, row) in page.rows {
                // One that moved was swept by somebody else.
                match self.driver.remove(key, row.version).await {
                    Err(error) if error.is_transient() => return Err(error.into()),
                    outcome => swept += usize::from(outcome.unwrap_or_default()),
                }
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        Ok(swept)
    }
}

/// Ten times in the life of a state, so that the dead are few beside the living.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Rows asked for at once.
const SWEEP_AT_ONCE: usize = 1000;

/// A bound on one sweep's work; the next one takes the rest.
const SWEEPS: usize = 10;
