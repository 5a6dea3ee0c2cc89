//! What a caller sets off and does not wait for.

use std::sync::Arc;
use std::time::SystemTime;

use super::engine::Engine;
use super::protocol;
use super::refresh::Trigger;
use crate::store::ChainKey;

impl Engine {
    /// Starts a refresh that no caller waits for, unless one is running or none can be of use.
    pub(super) fn refresh_quietly(self: &Arc<Self>, key: &ChainKey) {
        if self.may_refresh_quietly(key) {
            // Closed: the process is going down, and the token still serves.
            drop(self.refresh(key, Trigger::Use));
        }
    }

    fn may_refresh_quietly(&self, key: &ChainKey) -> bool {
        !self.pace.is_held() && !self.recent.was_checked(key) && !self.flights.is_running(key)
    }

    /// Records, once per pair and process, that a caller uses the chain, so that its next pair is
    /// bought ahead; and if it `is_due`, buys that now.
    ///
    /// All of it on one task: a worker of tokio's takes the first one that a caller starts up by
    /// itself, and for a second one wakes another thread, which the caller pays for.
    pub(super) fn note_use(
        self: &Arc<Self>,
        key: &ChainKey,
        expires_at: Option<SystemTime>,
        is_due: bool,
    ) {
        // A process that has just begun meets all its chains for the first time. Those that get
        // no permit now are recorded at a later use.
        let permit = expires_at.and_then(|_| Arc::clone(&self.notes).try_acquire_owned().ok());
        let permit = permit.filter(|_| self.recent.is_first_use(key, expires_at));
        let is_due = is_due && self.may_refresh_quietly(key);
        if permit.is_none() && !is_due {
            return;
        }
        let (engine, key) = (Arc::clone(self), key.clone());
        drop(tokio::spawn(async move {
            if is_due {
                drop(engine.refresh(&key, Trigger::Use));
            }
            if let Some(_permit) = permit {
                engine.touch(&key).await;
            }
        }));
    }

    async fn touch(&self, key: &ChainKey) {
        let touched = self.step(key, None, |chain| (protocol::touch(chain), ()));
        if let Err(error) = touched.await {
            tracing::debug!(chain = %key, %error, "the use of a chain could not be noted");
        }
    }
}
