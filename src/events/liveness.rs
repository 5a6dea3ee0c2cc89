//! Whether an event is about the installation that stands.

use std::time::{Duration, SystemTime};

use super::{Lifecycle, LifecycleError};
use crate::installation::Installation;
use crate::secret::AccessToken;
use crate::slack::ErrorClass;

/// An event's time beside an installation's, both on Slack's clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Age {
    /// The event is about something before the installation.
    Earlier,
    /// Too close to tell.
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
    /// Whether an uninstallation at that time ended this installation, and not an earlier one.
    /// In doubt, Slack is asked.
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

    /// Whether Slack says that an installation is dead.
    pub(super) async fn is_ended(
        &self,
        installation: &Installation,
    ) -> Result<bool, LifecycleError> {
        if let Some(bot) = &installation.bot {
            return self.is_dead(&bot.grant.access_token, Age::Ambiguous).await;
        }
        // Without a bot, the person who installed has the token that can be asked about.
        let by = installation.installed_by.as_ref();
        let with_user = self.installations.fetch(&installation.key(), by).await?;
        match with_user.as_ref().and_then(|found| found.user.as_ref()) {
            Some(user) => self.is_dead(&user.grant.access_token, Age::Ambiguous).await,
            None => Ok(true),
        }
    }

    /// Whether a token that Slack told us of is dead indeed.
    pub(super) async fn is_dead(
        &self,
        token: &AccessToken,
        age: Age,
    ) -> Result<bool, LifecycleError> {
        match self.slack.auth_test(token).await {
            Ok(_) => Ok(false),
            Err(error) => match error.class() {
                // `invalid_auth` is also what an address gets that is not on the allow-list: only
                // beside an event that is about this installation it says that the token is dead.
                ErrorClass::InvalidAuth if age != Age::Later => Err(LifecycleError::Slack(error)),
                ErrorClass::Dead
                | ErrorClass::InvalidAuth
                | ErrorClass::InvalidToken
                | ErrorClass::Revoked => Ok(true),
                // Says nothing of the chain: then the time decides.
                ErrorClass::TokenExpired if age != Age::Ambiguous => Ok(age == Age::Later),
                _ => Err(LifecycleError::Slack(error)),
            },
        }
    }
}

/// An event dispatched this long before the installation is about an earlier one. Both times are
/// Slack's, to the second, from different machines of theirs.
const SURELY_BEFORE: Duration = Duration::from_secs(5);

/// An event dispatched this long after the installation is about this one. `event_time` is when
/// Slack dispatched it, which its repetitions keep; that it is dispatched within this time of what
/// it tells of is an assumption of ours.
const SURELY_AFTER: Duration = Duration::from_secs(300);
