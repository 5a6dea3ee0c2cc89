//! Where a flow is to install the app, and whether it did.

use tokio::time::Instant;

use super::pending::Expected;
use super::{Inner, STORE_PATIENCE, policies};
use crate::installation::{Enterprise, Grant, Home, Installation};
use crate::store::in_time;
use crate::tenant::{InstallationKey, TeamId};

impl Inner {
    /// Returns whether the app was installed where the flow was to install it.
    pub(super) async fn is_expected(
        &self,
        installation: &Installation,
        expected: &Expected,
    ) -> bool {
        let home = &installation.home;
        let org = home.enterprise().map(|org| &org.id);
        if expected.enterprise.is_some() && expected.enterprise.as_ref() != org {
            return false;
        }
        match (&expected.team, home) {
            (None, _) => true,
            (Some(team), Home::Workspace { team: actual, .. }) => *team == actual.id,
            (Some(team), Home::Org(org)) => self.covers(installation, org, team).await,
        }
    }

    /// Returns whether the workspace is known to belong to the organisation of this org-wide
    /// installation. If nothing says so, it is not.
    async fn covers(&self, installation: &Installation, org: &Enterprise, team: &TeamId) -> bool {
        let key = InstallationKey::workspace(team.clone());
        let stored = self.installations.fetch(&key, None);
        let stored = in_time(Instant::now() + STORE_PATIENCE, stored).await;
        let stored = stored.ok().flatten();
        let stored_org = stored.as_ref().and_then(|stored| stored.home.enterprise());
        if stored_org.is_some_and(|stored| stored.id == org.id) {
            return true;
        }
        let grants = installation.grants().into_iter().flatten();
        if let Some(by) = &installation.installed_by
            && let Some(grant) = policies::reader_of_users(grants.clone())
            && let Ok(person) = self.slack.users_info(&grant.access_token, by).await
            && person.enterprise_id.as_ref() == Some(&org.id)
            && person.teams.contains(team)
        {
            return true;
        }
        for grant in grants {
            if self.lists(grant, team).await {
                return true;
            }
        }
        false
    }

    /// Returns whether `auth.teams.list` names the workspace.
    async fn lists(&self, grant: &Grant, team: &TeamId) -> bool {
        let mut cursor = String::new();
        for _ in 0..LISTED_PAGES {
            let page = self.slack.auth_teams_list(&grant.access_token, &cursor);
            let Ok((teams, next)) = page.await else {
                return false;
            };
            if teams.contains(team) {
                return true;
            }
            match next {
                Some(next) => cursor = next,
                None => return false,
            }
        }
        false
    }
}

/// The most pages of `auth.teams.list` that are read, with 1,000 workspaces each.
const LISTED_PAGES: usize = 20;
