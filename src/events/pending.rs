//! Calls your app's hooks for the stored departures and notices, until they succeed.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;

use super::{Lifecycle, LifecycleError, LifecycleHooks, REPORT_AGAIN};
use crate::error_chain::error_chain;
use crate::panics::catch_panic;
use crate::store::{self, PendingDeparture, PendingNotice, Subject};
use crate::tenant::InstallationKey;

/// Something that your app has not been told yet.
pub(super) enum Pending {
    Departure(PendingDeparture),
    Notice(PendingNotice),
}

/// The queues of what your app is told. A slow hook for one of them delays nothing in the other.
#[derive(Clone, Copy)]
enum Queue {
    Departures,
    Notices,
}

impl Pending {
    fn tenant(&self) -> &InstallationKey {
        match self {
            Self::Departure(pending) => &pending.departure.key,
            Self::Notice(pending) => &pending.notice.key,
        }
    }

    fn attempts(&self) -> u32 {
        match self {
            Self::Departure(pending) => pending.attempts,
            Self::Notice(pending) => pending.attempts,
        }
    }

    /// Returns the name of the hook.
    fn hook(&self) -> &'static str {
        match self {
            Self::Departure(_) => "uninstalled",
            Self::Notice(pending) => match pending.notice.subject {
                Subject::Authorization(_) => "authorization_revoked",
                Subject::Chain(_) => "reinstall_needed",
                Subject::Workspace(_) => "workspace_left",
            },
        }
    }
}

impl Lifecycle {
    /// Calls the hooks for departures and notices that were not reported yet: because they are
    /// new, because of a crash, or because a hook failed. Returns how many were reported.
    ///
    /// Call it about every minute in each process, or run [`run`](Self::run). If a hook fails
    /// again, its call is postponed, by up to an hour each time.
    ///
    /// # Errors
    ///
    /// [`LifecycleError::Store`] if the database is unavailable. A hook's error, or a row that
    /// cannot be decrypted, is logged, and the others are still reported.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the reports in progress are repeated later.
    pub async fn resume_pending(&self) -> Result<usize, LifecycleError> {
        let departures = self.resume(Queue::Departures);
        let (departures, notices) = tokio::join!(departures, self.resume(Queue::Notices));
        Ok(departures? + notices?)
    }

    /// Does the same as [`resume_pending`](Self::resume_pending), immediately and then every
    /// minute. Never returns; drop the future to stop.
    pub async fn run(&self) {
        let departures = self.keep_resuming(Queue::Departures);
        tokio::join!(departures, self.keep_resuming(Queue::Notices));
    }

    async fn keep_resuming(&self, queue: Queue) {
        let mut minutes = tokio::time::interval(REPORT_AGAIN);
        loop {
            minutes.tick().await;
            if let Err(error) = self.resume(queue).await {
                tracing::warn!(
                    error = error_chain(&error),
                    "cannot read what the hooks must be called for; this is tried again in a minute"
                );
            }
        }
    }

    async fn resume(&self, queue: Queue) -> Result<usize, LifecycleError> {
        if self.hooks.is_none() {
            return Ok(0);
        }
        let now = self.clock.now();
        let mut told = 0;
        for pending in self.due(queue, now).await? {
            let until = now + pause(pending.attempts());
            let outcome = match self.postpone(&pending, until).await {
                Ok(Some(pending)) => self.report(&pending).await,
                // Another worker already has it.
                Ok(None) => continue,
                Err(error) => Err(error.into()),
            };
            match outcome {
                Ok(()) => told += 1,
                // Only the database concerns the notes of all tenants.
                Err(LifecycleError::Store(error @ store::Error::Unavailable(_))) => {
                    return Err(error.into());
                }
                Err(error) => log(&pending, &error),
            }
        }
        Ok(told)
    }

    async fn due(&self, queue: Queue, now: SystemTime) -> Result<Vec<Pending>, store::Error> {
        Ok(match queue {
            Queue::Departures => {
                let due = self.installations.due_departures(now, AT_ONCE).await?;
                due.into_iter().map(Pending::Departure).collect()
            }
            Queue::Notices => {
                let due = self.installations.due_notices(now, AT_ONCE).await?;
                due.into_iter().map(Pending::Notice).collect()
            }
        })
    }

    async fn postpone(
        &self,
        pending: &Pending,
        until: SystemTime,
    ) -> Result<Option<Pending>, store::Error> {
        let store = &self.installations;
        Ok(match pending {
            Pending::Departure(pending) => {
                let postponed = store.postpone(pending, until).await?;
                postponed.map(Pending::Departure)
            }
            Pending::Notice(pending) => {
                let postponed = store.postpone_notice(pending, until).await?;
                postponed.map(Pending::Notice)
            }
        })
    }

    /// Calls the hook for this departure or notice, and then removes it from the store.
    pub(super) async fn report(&self, pending: &Pending) -> Result<(), LifecycleError> {
        let Some(hooks) = &self.hooks else {
            return Ok(());
        };
        let again = match pending {
            Pending::Departure(_) => self.installations.glance(pending.tenant()).await?.is_some(),
            Pending::Notice(_) => false,
        };
        // A hook that panics or never returns must not block the reports of other tenants.
        let hook = catch_panic(call(&**hooks, pending, again));
        let outcome = match tokio::time::timeout(REPORT_AGAIN, hook).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => Err("the hook panicked".into()),
            Err(_) => Err("the hook took longer than a minute".into()),
        };
        outcome.map_err(LifecycleError::Hook)?;
        match pending {
            Pending::Departure(pending) => self.installations.settle(pending).await?,
            Pending::Notice(pending) => self.installations.settle_notice(pending).await?,
        };
        Ok(())
    }

    /// Reports new notices, all at the same time. They are stored, so a hook that fails is called
    /// again later.
    pub(super) async fn report_now(&self, notices: Vec<PendingNotice>) {
        let reports = notices.into_iter().map(|pending| async move {
            let pending = Pending::Notice(pending);
            if let Err(error) = self.report(&pending).await {
                log(&pending, &error);
            }
        });
        join_all(reports).await;
    }
}

async fn call(
    hooks: &dyn LifecycleHooks,
    pending: &Pending,
    is_installed_again: bool,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    match pending {
        Pending::Departure(pending) => {
            let departure = &pending.departure;
            hooks.uninstalled(departure, is_installed_again).await
        }
        Pending::Notice(pending) => match &pending.notice.subject {
            Subject::Authorization(whose) => {
                hooks.authorization_revoked(whose, &pending.notice).await
            }
            Subject::Chain(whose) => hooks.reinstall_needed(whose, &pending.notice).await,
            Subject::Workspace(team) => hooks.workspace_left(team, &pending.notice).await,
        },
    }
}

fn log(pending: &Pending, error: &LifecycleError) {
    tracing::error!(
        tenant = %pending.tenant(),
        hook = pending.hook(),
        attempts = pending.attempts(),
        error = error_chain(error),
        "a hook of `LifecycleHooks` was not called successfully; this is tried again later"
    );
}

/// Returns how long a report is postponed: a minute, then twice as long each time, at most an hour.
fn pause(attempts: u32) -> Duration {
    REPORT_AGAIN.saturating_mul(1 << attempts.min(6)).min(HOUR)
}

const HOUR: Duration = Duration::from_secs(3600);

/// The maximum number of reports in one round of a queue. The next round handles the rest.
const AT_ONCE: usize = 100;
