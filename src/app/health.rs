//! A health check for load balancers.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::store::{self, Store};
use crate::tenant::{InstallationKey, TeamId};

/// Whether this process can serve requests, and why not. It has no ids and no secrets, so a load
/// balancer may read it.
///
/// As JSON: `{"is_live":true,"is_ready":false,"reasons":["database"]}`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// Whether the process works. If not, restart it.
    pub is_live: bool,
    /// Whether the process can serve requests. If not, send them to another process.
    pub is_ready: bool,
    /// What is wrong.
    pub reasons: Vec<HealthReason>,
}

/// Something that is wrong with a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum HealthReason {
    /// Slack rejects the app's own configuration, such as its client secret, so no token is
    /// refreshed. The process stays ready, because tokens are valid for some hours, and every other
    /// process has the same configuration.
    AppRejected,
    /// The background work has panicked. Only a restart begins it again.
    BackgroundPanicked,
    /// The database does not respond.
    Database,
    /// The data key cannot be used: the key provider fails, or the keyring cannot be read. A data
    /// key stays in memory for up to 15 minutes, so this follows an outage of the key provider by
    /// that time.
    Keys,
    /// [`SlackApp::shutdown`](crate::SlackApp::shutdown) was called.
    ShuttingDown,
}

impl HealthReason {
    /// Returns whether a process with this reason can still serve requests.
    fn leaves_ready(self) -> bool {
        matches!(self, Self::AppRejected | Self::BackgroundPanicked)
    }
}

/// What the health check remembers.
#[derive(Default)]
pub(super) struct Checks {
    /// What the last check of the store found, and when it began.
    last: Mutex<Option<(Instant, Vec<HealthReason>)>>,
    has_panicked: AtomicBool,
}

/// Notices a panic of the background work.
pub(super) struct PanicWatch<'a>(pub(super) &'a Checks);

impl Drop for PanicWatch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.has_panicked.store(true, Ordering::Relaxed);
        }
    }
}

impl Checks {
    /// Returns the health of a process with this store.
    pub(super) async fn health(
        &self,
        store: &dyn Store,
        is_rejected: bool,
        is_stopping: bool,
    ) -> Health {
        let mut reasons = self.of_store(store).await;
        if is_rejected {
            reasons.push(HealthReason::AppRejected);
        }
        let has_panicked = self.has_panicked.load(Ordering::Relaxed);
        if has_panicked {
            reasons.push(HealthReason::BackgroundPanicked);
        }
        if is_stopping {
            reasons.push(HealthReason::ShuttingDown);
        }
        Health {
            is_live: !has_panicked,
            is_ready: reasons.iter().all(|reason| reason.leaves_ready()),
            reasons,
        }
    }

    /// Returns what is wrong with the store. Of many callers, one reads it.
    async fn of_store(&self, store: &dyn Store) -> Vec<HealthReason> {
        let mut last = self.last.lock().await;
        let now = Instant::now();
        if let Some((begun, reasons)) = &*last
            && now.duration_since(*begun) < FRESH
        {
            return reasons.clone();
        }
        // A row that does not exist. The read shows that the database responds.
        let nobody = TeamId::new("T0").expect("a team's id");
        let nobody = InstallationKey::workspace(nobody);
        let read = in_time(store.glance(&nobody));
        let (read, ready) = tokio::join!(read, in_time(store.ready()));
        let is_of_key = |error: &store::Error| error.is_of_record();
        let mut reasons = Vec::new();
        let is_up = matches!(read, Some(Ok(_)));
        if !is_up {
            reasons.push(HealthReason::Database);
        }
        match ready {
            Some(Ok(())) => {}
            Some(Err(error)) if is_of_key(&error) => reasons.push(HealthReason::Keys),
            // The keyring is in the database.
            _ if !is_up => {}
            None => reasons.push(HealthReason::Keys),
            Some(Err(_)) => reasons.push(HealthReason::Database),
        }
        *last = Some((now, reasons.clone()));
        reasons
    }
}

/// Returns `None` if the store does not respond in time.
async fn in_time<T>(call: impl Future<Output = T>) -> Option<T> {
    timeout(PATIENCE, call).await.ok()
}

/// How long a check waits. A load balancer usually waits for some seconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a result is used again.
const FRESH: Duration = Duration::from_secs(1);
