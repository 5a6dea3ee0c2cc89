//! Handles `app_uninstalled`: purges the tenant and calls your app's hook.

use std::time::SystemTime;

use super::liveness::{Age, age};
use super::pending::Pending;
use super::{Handled, Lifecycle, LifecycleError};
use crate::installation::Revision;
use crate::metrics;
use crate::request::LifecycleEvent;
use crate::span::{self, Ended, Operation};
use crate::store::{self, Departure};
use crate::tenant::InstallationKey;

impl Lifecycle {
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
        let span = span::purge();
        span.tenant(key).kind(key.kind());
        let ended = |_: &Operation, outcome: &Result<(), LifecycleError>| match outcome {
            Ok(()) => Ended::well("purged"),
            Err(error @ LifecycleError::Hook(_)) => Ended::badly("purged", error.name()),
            Err(error) => Ended::badly("failed", error.name()),
        };
        span.run(self.purge_and_tell(key, only, reason), ended)
            .await
    }

    async fn purge_and_tell(
        &self,
        key: &InstallationKey,
        only: Revision,
        reason: &str,
    ) -> Result<(), LifecycleError> {
        let now = self.clock.now();
        let mut departure = Departure::new(key.clone(), reason, now);
        let tell_at = self.tell_at(now);
        if tell_at.is_some() {
            self.complete(&mut departure, only).await?;
        }
        let pending = self.installations.purge(&departure, only, tell_at).await?;
        tracing::info!(tenant = %key, reason = departure.reason, "purged");
        metrics::UNINSTALLS.add([metrics::purge_reason(reason)]);
        match pending {
            Some(pending) => self.report(&Pending::Departure(pending)).await,
            None => Ok(()),
        }
    }

    /// Adds who installed the app, and the metadata of the flow. The purge requires the same
    /// revision, so they are those of the installation that it removes.
    async fn complete(
        &self,
        departure: &mut Departure,
        only: Revision,
    ) -> Result<(), LifecycleError> {
        match self.installations.fetch(&departure.key, None).await {
            Ok(Some(stored)) if stored.revision == only => {
                departure.installed_by = stored.installation.installed_by;
                departure.metadata = stored.installation.metadata;
                Ok(())
            }
            // A tenant is purged even if its rows do not open.
            Ok(_) | Err(store::Error::Unreadable(_)) => Ok(()),
            Err(error) => Err(error.into()),
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
            Some(pending) => {
                self.report(&Pending::Departure(pending)).await?;
                Ok(Handled::Purged)
            }
            None => Ok(Handled::Ignored),
        }
    }
}

/// The reason of the departure: the event's type.
const REASON: &str = LifecycleEvent::AppUninstalled.name();
