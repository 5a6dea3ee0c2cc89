//! Handles `app_uninstalled`: purges the tenant and calls your app's hook.

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
    /// Calls the hook for departures that were not reported yet, because of a crash or a failed
    /// hook. Returns how many were reported.
    ///
    /// Call it about every minute in each process, or run [`run`](Self::run). If the hook fails
    /// again, the departure is postponed, by up to an hour each time.
    ///
    /// # Errors
    ///
    /// [`LifecycleError::Store`] if the database is unavailable. A hook's error, or a departure
    /// that cannot be decrypted, is logged, and the others are still reported.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the departure in progress is reported again later.
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
                // Another worker already has it.
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
                        "a purged tenant could not be reported to the hook \
                         `LifecycleHooks::uninstalled`; this is tried again later"
                    );
                }
            }
        }
        Ok(told)
    }

    /// Calls [`resume_pending`](Self::resume_pending) immediately and then every minute. Never
    /// returns; drop the future to stop.
    pub async fn run(&self) {
        let mut minutes = tokio::time::interval(REPORT_AGAIN);
        loop {
            minutes.tick().await;
            if let Err(error) = self.resume_pending().await {
                tracing::warn!(
                    error = error_chain(&error),
                    "cannot read which purged tenants the hook must be called for; this is tried \
                     again in a minute"
                );
            }
        }
    }

    /// Purges the tenant if the event ended its installation. `org` is the organisation of the
    /// workspace, if the event names both.
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
                    // The time is not authenticated, but it is good enough to keep a newer
                    // installation.
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

    /// Handles an event for a workspace that has no installation of its own. It may be about the
    /// organisation's installation, which is purged if Slack reports that it is dead.
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

    /// Returns whether this workspace has no installation and its organisation is known.
    pub(super) async fn is_only_in(
        &self,
        key: &InstallationKey,
        org: Option<&InstallationKey>,
    ) -> Result<bool, LifecycleError> {
        Ok(org.is_some() && self.installations.glance(key).await?.is_none())
    }

    /// Purges a tenant whose installation has this revision, and calls the hook.
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

    /// Reports an earlier purge of this tenant to the hook, if it was not reported yet.
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
        // A hook that panics or never returns must not block the departures of other tenants.
        let hook = catch_panic(hooks.uninstalled(departure, again));
        let outcome = match tokio::time::timeout(REPORT_AGAIN, hook).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => Err("`LifecycleHooks::uninstalled` panicked".into()),
            Err(_) => Err("`LifecycleHooks::uninstalled` took longer than a minute".into()),
        };
        outcome.map_err(LifecycleError::Hook)?;
        self.installations.settle(pending).await?;
        Ok(())
    }
}

/// The reason of the departure: the event's type.
const REASON: &str = LifecycleEvent::AppUninstalled.name();

/// Returns how long a departure is postponed: a minute, then twice as long each time, at most an
/// hour.
fn pause(attempts: u32) -> Duration {
    REPORT_AGAIN.saturating_mul(1 << attempts.min(6)).min(HOUR)
}

const HOUR: Duration = Duration::from_secs(3600);

/// The maximum number of departures in one round. The next round handles the rest.
const AT_ONCE: usize = 100;
