//! Removes expired rows: OAuth states and handled requests.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use super::EncryptedStore;
use crate::backend::{Backend, Lane};
use crate::error_chain::error_chain;
use crate::store::Error;

impl<B: Backend> EncryptedStore<B> {
    /// Removes expired rows in the background, at most once in [`SWEEP_EVERY`].
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
                    "cannot remove expired OAuth states; the next sweep tries again"
                );
            }
        }));
    }

    /// Removes used OAuth states that have expired, and handled requests whose retention has ended.
    /// Returns the number of removed rows.
    ///
    /// Ending a flow or claiming a request calls this in the background from time to time. So an app
    /// with little traffic does not need to call it.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], if the database does not respond. Some rows may have been removed.
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
                // A row that has changed was swept by another process.
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

/// The pause between two sweeps: a tenth of a state's life, so that few expired rows are stored.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// The rows of one page.
const SWEEP_AT_ONCE: usize = 1000;

/// The maximum number of pages of one sweep. The next sweep handles the rest.
const SWEEPS: usize = 10;
