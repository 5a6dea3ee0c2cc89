//! `app_uninstalled`: the purge, and what the host is told of it.

use std::time::{Duration, SystemTime};

use super::liveness::{Age, age};
use super::{Handled, Lifecycle, LifecycleError, REPORT_AGAIN};
use crate::error_chain::error_chain;
use crate::installation::Revision;
use crate::panics::catch_panic;
use crate::request::LifecycleEvent;
use crate::store::{self, Departure, PendingDeparture};
use crate::tenant::InstallationKey;

impl Lifecycle {
    /// Tells the host of departures that it was not told of yet: after a crash, or a hook that
    /// failed. Answers how many it was told of now.
    ///
    /// Call it every minute or so in each process, or run [`run`](Self::run). One that the hook
    /// refuses again is put off, up to an hour each time.
    ///
    /// # Errors
    ///
    /// [`LifecycleError::Store`] if the database does not answer. A hook's error, or a note that
    /// does not open, is logged, and the others are told all the same.
    ///
    /// # Cancel safety
    ///
    /// Dropped, a departure that was being told of is told again later.
    pub async fn resume_pending(&self) -> Result<usize, LifecycleError> {
        if self.hooks.is_none() {
            return Ok(0);
        }
        let now = self.clock.now();
        let mut told = 0;
        for pending in self.installations.due_departures(now, AT_ONCE).await? {
            let until = now + pause(pending.attempts);
            let outcome = match self.installations.postpone(&pending, until).await {
                Ok(Some(pending)) => self.report(&pending).await,
                // Another worker has it by now.
                Ok(None) => continue,
                Err(error) => Err(error.into()),
            };
            match outcome {
                Ok(()) => told += 1,
                Err(LifecycleError::Store(error)) if error.is_transient() => {
                    return Err(error.into());
                }
                Err(error) => {
                    tracing::error!(
                        tenant = %pending.departure.key,
                        attempts = pending.attempts,
                        error = error_chain(&error),
                        "the host could not be told of a departure yet"
                    );
                }
            }
        }
        Ok(told)
    }

    /// Resumes what is pending, now and then each minute. Never ends; drop it to stop.
    pub async fn run(&self) {
        let mut minutes = tokio::time::interval(REPORT_AGAIN);
        loop {
            minutes.tick().await;
            if let Err(error) = self.resume_pending().await {
                tracing::warn!(
                    error = error_chain(&error),
                    "pending departures could not be resumed"
                );
            }
        }
    }

    /// `org` is the organisation of the workspace that the event names, if it names both.
    pub(super) async fn app_uninstalled(
        &self,
        key: &InstallationKey,
        org: Option<&InstallationKey>,
        at: SystemTime,
    ) -> Result<Handled, LifecycleError> {
        let standing = match self.installations.fetch(key, None).await {
            Ok(Some(installation)) => {
                if !self.is_ended_by(&installation, at).await? {
                    return Ok(Handled::Ignored);
                }
                installation.revision
            }
            Ok(None) => {
                return match (self.report_pending(key).await?, org) {
                    (Handled::Ignored, Some(org)) => self.org_uninstalled(org, at).await,
                    (handled, _) => Ok(handled),
                };
            }
            Err(error @ store::Error::Unreadable(_)) => {
                match self.installations.glance(key).await? {
                    // Its time is not authenticated, but good enough to spare a newer one.
                    Some((revision, Some(summary))) => match age(summary.installed_at, at) {
                        Age::Earlier => return Ok(Handled::Ignored),
                        Age::Ambiguous => return Err(error.into()),
                        Age::Later => revision,
                    },
                    Some((revision, None)) => revision,
                    None => return Err(store::Error::Conflict.into()),
                }
            }
            Err(error) => return Err(error.into()),
        };
        self.purge(key, standing, REASON).await?;
        Ok(Handled::Purged)
    }

    /// An event that names a workspace without an installation of its own: it may be about its
    /// organisation's, which goes if Slack says that it is dead.
    async fn org_uninstalled(
        &self,
        org: &InstallationKey,
        at: SystemTime,
    ) -> Result<Handled, LifecycleError> {
        let Some(installation) = self.installations.fetch(org, None).await? else {
            return self.report_pending(org).await;
        };
        let is_older = age(installation.installed_at, at) == Age::Earlier;
        if is_older || !self.is_ended(&installation).await? {
            return Ok(Handled::Ignored);
        }
        self.purge(org, installation.revision, REASON).await?;
        Ok(Handled::Purged)
    }

    /// Whether this workspace has no installation, and its organisation is known.
    pub(super) async fn is_only_in(
        &self,
        key: &InstallationKey,
        org: Option<&InstallationKey>,
    ) -> Result<bool, LifecycleError> {
        Ok(org.is_some() && self.installations.glance(key).await?.is_none())
    }

    /// Purges a tenant whose installation is of that revision, and tells the host.
    pub(crate) async fn purge(
        &self,
        key: &InstallationKey,
        only: Revision,
        reason: &str,
    ) -> Result<(), LifecycleError> {
        let now = self.clock.now();
        let departure = Departure::new(key.clone(), reason, now);
        let tell_at = self.hooks.is_some().then(|| now + REPORT_AGAIN);
        let pending = self.installations.purge(&departure, only, tell_at).await?;
        tracing::info!(tenant = %key, reason = departure.reason, "purged");
        match pending {
            Some(pending) => self.report(&pending).await,
            None => Ok(()),
        }
    }

    /// Tells the host of a purge that came before, if it was not told yet.
    pub(crate) async fn report_pending(
        &self,
        key: &InstallationKey,
    ) -> Result<Handled, LifecycleError> {
        if self.hooks.is_none() {
            return Ok(Handled::Ignored);
        }
        match self.installations.departure(key).await? {
            Some(pending) => self.report(&pending).await.map(|()| Handled::Purged),
            None => Ok(Handled::Ignored),
        }
    }

    async fn report(&self, pending: &PendingDeparture) -> Result<(), LifecycleError> {
        let Some(hooks) = &self.hooks else {
            return Ok(());
        };
        let departure = &pending.departure;
        let again = self.installations.glance(&departure.key).await?.is_some();
        // A hook that panics, or never ends, must keep no other tenant's from being told.
        let hook = catch_panic(hooks.uninstalled(departure, again));
        let outcome = match tokio::time::timeout(REPORT_AGAIN, hook).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => Err("the hook panicked".into()),
            Err(_) => Err("the hook took longer than a minute".into()),
        };
        outcome.map_err(LifecycleError::Hook)?;
        self.installations.settle(pending).await?;
        Ok(())
    }
}

/// Why a tenant departs: the event's type.
const REASON: &str = LifecycleEvent::AppUninstalled.name();

/// How long a departure is put off: a minute, then twice as long each time, an hour at most.
fn pause(attempts: u32) -> Duration {
    REPORT_AGAIN.saturating_mul(1 << attempts.min(6)).min(HOUR)
}

const HOUR: Duration = Duration::from_secs(3600);

/// A bound on one round's work; the next one takes the rest.
const AT_ONCE: usize = 100;
