//! Handles events of organisations: which workspaces an org-wide installation may serve, and
//! workspaces that join.

use std::time::SystemTime;

use serde::Deserialize;

use super::liveness::{Age, age};
use super::{Handled, Lifecycle, LifecycleError};
use crate::clock::to_epoch;
use crate::installation::Installation;
use crate::request::LifecycleEvent;
use crate::store::{Access, Subject};
use crate::tenant::{EnterpriseId, InstallationKey, TeamId};

/// `team_access_granted` and `team_access_revoked`. Slack's own sample nests the event in another
/// event; the tests of its SDKs do not.
#[derive(Deserialize)]
pub(super) struct TeamAccess {
    event: AccessEvent,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AccessEvent {
    event: Option<Box<Self>>,
    event_ts: Option<String>,
    team_ids: Vec<String>,
}

/// `grid_migration_finished`.
#[derive(Deserialize)]
pub(super) struct Migration {
    event: MigrationEvent,
}

#[derive(Deserialize)]
struct MigrationEvent {
    #[serde(default)]
    enterprise_id: Option<String>,
}

impl Lifecycle {
    pub(super) async fn team_access(
        &self,
        key: &InstallationKey,
        at: SystemTime,
        is_granted: bool,
        said: TeamAccess,
    ) -> Result<Handled, LifecycleError> {
        let event = match said.event {
            AccessEvent {
                event: Some(nested),
                ..
            } => *nested,
            event => event,
        };
        let (Some(org), true) = (key.enterprise(), key.is_org()) else {
            return Ok(Handled::Ignored);
        };
        let Some((_, summary)) = self.installations.glance(key).await? else {
            return Ok(Handled::Ignored);
        };
        // An event about an earlier installation's grant does not change this one.
        if summary.is_some_and(|summary| age(summary.installed_at, at) == Age::Earlier) {
            return Ok(Handled::Ignored);
        }
        let teams = event.team_ids.iter();
        let access = Access {
            teams: teams
                .filter_map(|id| TeamId::new(id.as_str()).ok())
                .collect(),
            is_granted,
            at_micros: event
                .event_ts
                .and_then(|ts| micros(&ts))
                .unwrap_or_else(|| to_epoch(at).saturating_mul(1_000_000)),
        };
        let is_installed = match self.ending(REASON).filter(|_| !is_granted) {
            Some(ending) => {
                let store = &self.installations;
                store.set_access_telling(org, &access, &ending).await?
            }
            None => self.installations.set_access(org, &access).await?,
        };
        if !is_installed {
            return Ok(Handled::Ignored);
        }
        if !is_granted {
            let left: Vec<_> = access.teams.into_iter().map(Subject::Workspace).collect();
            self.tell(key, &left).await;
        }
        Ok(Handled::Noted)
    }

    /// Handles a workspace that joined an organisation. Asks Slack, because the event may be old.
    /// If Slack does not say, the event's enterprise id is used.
    pub(super) async fn migration_finished(
        &self,
        key: &InstallationKey,
        at: SystemTime,
        said: Migration,
    ) -> Result<Handled, LifecycleError> {
        let Some(installation) = self.installations.fetch(key, None).await? else {
            return Ok(Handled::Ignored);
        };
        let told = said
            .event
            .enterprise_id
            .filter(|_| age(installation.installed_at, at) != Age::Earlier)
            .and_then(|id| EnterpriseId::new(id).ok());
        let Some(enterprise) = self.enterprise_of(&installation).await.or(told) else {
            return Ok(Handled::Ignored);
        };
        let noted = self
            .installations
            .set_enterprise(key, installation.revision, Some(&enterprise))
            .await?;
        Ok(if noted {
            Handled::Noted
        } else {
            Handled::Ignored
        })
    }

    async fn enterprise_of(&self, installation: &Installation) -> Option<EnterpriseId> {
        let bot = installation.bot.as_ref()?;
        let test = self.slack.auth_test(&bot.grant.access_token).await.ok()?;
        let team = installation.home.team().map(|team| &team.id);
        test.enterprise_id.filter(|_| test.team_id.as_ref() == team)
    }
}

/// The reason of the notice: the event's type.
const REASON: &str = LifecycleEvent::AccessRevoked.name();

/// Parses Slack's `event_ts`, such as `1790000010.111222`, and returns microseconds.
fn micros(ts: &str) -> Option<u64> {
    let (seconds, fraction) = ts.split_once('.')?;
    let digits = fraction.len() == 6 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let fraction: u64 = fraction.parse().ok().filter(|_| digits)?;
    seconds
        .parse::<u64>()
        .ok()?
        .checked_mul(1_000_000)?
        .checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_stamp_of_slacks_is_read_to_the_microsecond() {
        assert_eq!(micros("1790000010.111222"), Some(1_790_000_010_111_222));
        for other in ["1790000010", "1790000010.1", "x.111222", "1.11122x", ""] {
            assert_eq!(micros(other), None, "{other}");
        }
    }
}
