//! The stored formats of departures and of an organisation's access to workspaces. They are
//! metadata without secrets. Members are added, but never changed or removed.

use serde::{Deserialize, Serialize};

use super::record::unknown;
use crate::clock::{from_epoch, to_epoch};
use crate::store::{Access, Departure, Error};
use crate::tenant::{EnterpriseId, InstallationKey, TeamId, UserId};

/// The departure of a tenant, of which your app is notified. The install flow's metadata is sealed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct DepartureFacts {
    enterprise_id: Option<EnterpriseId>,
    team_id: Option<TeamId>,
    reason: String,
    /// Seconds since 1970.
    purged_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    installed_by: Option<UserId>,
    pub(super) attempts: u32,
}

impl DepartureFacts {
    pub(super) fn of(departure: &Departure) -> Self {
        Self {
            enterprise_id: departure.key.enterprise().cloned(),
            team_id: departure.key.team().cloned(),
            reason: departure.reason.clone(),
            purged_at: to_epoch(departure.at),
            installed_by: departure.installed_by.clone(),
            attempts: 0,
        }
    }

    /// Removes that this person installed the app. Returns whether they did.
    pub(super) fn forget(&mut self, person: &UserId) -> bool {
        self.installed_by.take_if(|by| by == person).is_some()
    }

    pub(super) fn departure(&self) -> Result<Departure, Error> {
        let key = InstallationKey::new(self.enterprise_id.clone(), self.team_id.clone())
            .map_err(|_| unknown("a departure's ids"))?;
        let mut departure = Departure::new(key, &self.reason, from_epoch(self.purged_at));
        departure.installed_by.clone_from(&self.installed_by);
        Ok(departure)
    }
}

/// Whether an org-wide installation may serve one workspace.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct AccessFacts {
    pub(super) team_id: TeamId,
    pub(super) is_granted: bool,
    /// Microseconds since 1970, the precision of Slack's `event_ts`.
    pub(super) at_micros: u64,
}

impl AccessFacts {
    pub(super) fn of(team: &TeamId, access: &Access) -> Self {
        Self {
            team_id: team.clone(),
            is_granted: access.is_granted,
            at_micros: access.at_micros,
        }
    }

    /// Returns whether this change replaces the known one. If both have the same time, the
    /// revocation wins, because it grants less.
    pub(super) fn outdates(&self, known: &Self) -> bool {
        let rank = |facts: &Self| (facts.at_micros, !facts.is_granted);
        rank(self) > rank(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::from_epoch;
    use crate::encrypted::names::{ACCESS, DEPARTURE};
    use crate::encrypted::record::metadata;

    #[test]
    fn departures_and_access_are_written_in_the_forms_that_are_stored() {
        let team = TeamId::new("T0ALPHA0001").expect("an id");
        let org = EnterpriseId::new("E0GRID00001").expect("an id");
        let key = InstallationKey::workspace(team.clone()).within(org);
        let departure = Departure::new(key, "app_uninstalled", from_epoch(1_790_000_000));
        assert_eq!(
            metadata(DEPARTURE, &DepartureFacts::of(&departure)),
            "{\"v\":1,\"kind\":\"departure\",\"enterprise_id\":\"E0GRID00001\",\
             \"team_id\":\"T0ALPHA0001\",\"reason\":\"app_uninstalled\",\
             \"purged_at\":1790000000,\"attempts\":0}"
        );
        let access = Access {
            teams: Vec::new(),
            is_granted: false,
            at_micros: 1_790_000_000_111_222,
        };
        assert_eq!(
            metadata(ACCESS, &AccessFacts::of(&team, &access)),
            "{\"v\":1,\"kind\":\"access\",\"team_id\":\"T0ALPHA0001\",\
             \"is_granted\":false,\"at_micros\":1790000000111222}"
        );
    }

    #[test]
    fn the_latest_change_of_access_counts_and_a_revocation_wins_a_tie() {
        let team = TeamId::new("T0ALPHA0001").expect("an id");
        let at = |at_micros, is_granted| {
            let access = Access {
                teams: Vec::new(),
                is_granted,
                at_micros,
            };
            AccessFacts::of(&team, &access)
        };
        assert!(at(2, true).outdates(&at(1, false)));
        assert!(!at(1, false).outdates(&at(2, true)));
        assert!(at(1, false).outdates(&at(1, true)));
        assert!(!at(1, true).outdates(&at(1, false)));
        assert!(!at(1, false).outdates(&at(1, false)));
    }
}
