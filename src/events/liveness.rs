//! Checks whether an event is about the stored installation.

use std::time::{Duration, SystemTime};

use super::{Lifecycle, LifecycleError};
use crate::installation::Installation;
use crate::secret::AccessToken;
use crate::slack::ErrorClass;

/// An event's time relative to an installation's time, both on Slack's clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Age {
    /// The event is about an earlier installation.
    Earlier,
    /// The times are too close to decide.
    Ambiguous,
    /// The event is about this installation.
    Later,
}

pub(super) fn age(installed_at: SystemTime, at: SystemTime) -> Age {
    match at.duration_since(installed_at) {
        Ok(after) if after > SURELY_AFTER => Age::Later,
        Err(before) if before.duration() > SURELY_BEFORE => Age::Earlier,
        _ => Age::Ambiguous,
    }
}

impl Lifecycle {
    /// Returns whether an uninstallation at `at` ended this installation, and not an earlier one.
    /// If the times are too close, asks Slack.
    pub(super) async fn is_ended_by(
        &self,
        installation: &Installation,
        at: SystemTime,
    ) -> Result<bool, LifecycleError> {
        match age(installation.installed_at, at) {
            Age::Earlier => Ok(false),
            Age::Later => Ok(true),
            Age::Ambiguous => self.is_ended(installation).await,
        }
    }

    /// Returns whether Slack reports that the installation is dead.
    pub(super) async fn is_ended(
        &self,
        installation: &Installation,
    ) -> Result<bool, LifecycleError> {
        if let Some(bot) = &installation.bot {
            return self.is_dead(&bot.grant.access_token, Age::Ambiguous).await;
        }
        // Without a bot, the token of the installing user can be checked.
        let by = installation.installed_by.as_ref();
        let with_user = self.installations.fetch(&installation.key(), by).await?;
        match with_user.as_ref().and_then(|found| found.user.as_ref()) {
            Some(user) => self.is_dead(&user.grant.access_token, Age::Ambiguous).await,
            None => Ok(true),
        }
    }

    /// Returns whether a token that Slack reported as revoked is really dead.
    pub(super) async fn is_dead(
        &self,
        token: &AccessToken,
        age: Age,
    ) -> Result<bool, LifecycleError> {
        match self.slack.auth_test(token).await {
            Ok(_) => Ok(false),
            Err(error) => match error.class() {
                // Slack also returns `invalid_auth` to an address that is not on the allow-list. It
                // proves that the token is dead only if the event is about this installation.
                ErrorClass::InvalidAuth if age != Age::Later => Err(LifecycleError::Slack(error)),
                ErrorClass::Dead
                | ErrorClass::InvalidAuth
                | ErrorClass::InvalidToken
                | ErrorClass::Revoked => Ok(true),
                // An expired token says nothing about the chain, so the time decides.
                ErrorClass::TokenExpired if age != Age::Ambiguous => Ok(age == Age::Later),
                _ => Err(LifecycleError::Slack(error)),
            },
        }
    }
}

/// An event dispatched this long before the installation is about an earlier one. Both times are
/// Slack's, to the second, but from different Slack machines.
const SURELY_BEFORE: Duration = Duration::from_secs(5);

/// An event dispatched this long after the installation is about this one. `event_time` is the time
/// of the first dispatch, and repetitions keep it. We assume that Slack dispatches an event within
/// this time after the change that it reports.
const SURELY_AFTER: Duration = Duration::from_secs(300);
