//! Stores the tokens that a flow brought, or revokes them.

use std::time::Duration;

use tokio::time::Instant;

use super::config::Requested;
use super::error::Error;
use super::failed::Known;
use super::hooks::Installed;
use super::report::tenant;
use super::{Inner, STORE_PATIENCE};
use crate::error_chain::error_chain;
use crate::installation::{Enterprise, Grant, Home, Installation, Revision, Team};
use crate::secret::same;
use crate::slack::Unusable;
use crate::store::{self, in_time};
use crate::tenant::{EnterpriseId, InstallationKey, TeamId, UserId};

impl Inner {
    /// Stores an installation for which the person no longer waits, while the database is away.
    /// Gives up after [`KEEP_TRYING`], and revokes the tokens unless they may be in use. Your app's
    /// hooks hear of either.
    pub(super) async fn store_later(
        self,
        mut installation: Installation,
        requested: Requested,
        known: Known,
    ) {
        let tenant = installation.key();
        tracing::error!(
            %tenant,
            "an installation could not be stored yet; its tokens exist only in this process"
        );
        let give_up = Instant::now() + KEEP_TRYING;
        let mut pause = FIRST_PAUSE;
        let error = loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            let stored = self.installations.store(&installation);
            match in_time(Instant::now() + STORE_PATIENCE, stored).await {
                Ok(revision) => {
                    self.enrich(&mut installation, revision).await;
                    let installed = Installed {
                        installation,
                        requested,
                    };
                    drop(self.report(Ok(installed), &known).await);
                    return;
                }
                Err(error) if error.is_transient() && Instant::now() < give_up => {}
                Err(error) => break error,
            }
        };
        tracing::error!(
            %tenant,
            error = error_chain(&error),
            "an installation could not be stored; its tokens are revoked unless they may be in use"
        );
        self.revoke_unless_in_use(&installation).await;
        drop(self.report(Err(Error::Store(error)), &known).await);
    }

    /// Stores the installation, and retries while the database is unavailable, for at most
    /// [`STORE_PATIENCE`]. The code is already used, and the tokens exist nowhere else.
    pub(super) async fn store(
        &self,
        installation: &Installation,
    ) -> Result<Revision, store::Error> {
        let stored = self.store_in_tries(installation);
        in_time(Instant::now() + STORE_PATIENCE, stored).await
    }

    async fn store_in_tries(&self, installation: &Installation) -> Result<Revision, store::Error> {
        for pause in STORE_PAUSES {
            match self.installations.store(installation).await {
                Err(error) if error.is_transient() => {
                    tracing::warn!(
                        tenant = %installation.key(),
                        error = error_chain(&error),
                        "an installation could not be stored; it is tried again"
                    );
                    tokio::time::sleep(pause).await;
                }
                outcome => return outcome,
            }
        }
        self.installations.store(installation).await
    }

    /// Revokes newly issued tokens that will not be stored, unless a stored installation may use
    /// them.
    ///
    /// Without token rotation, revoking a bot's token removes the bot from the workspace. On a
    /// reinstall, Slack usually returns the same token that is already stored. So if the same bot
    /// or user has a stored grant, only rotating tokens are revoked, because that ends only these
    /// tokens. If the store is unavailable, nothing is revoked.
    ///
    /// If another flow stores the same non-rotating token between the check and the revocation, it
    /// loses the token, and the person must install again.
    pub(super) async fn revoke_unless_in_use(&self, installation: &Installation) {
        let user = installation.user.as_ref().map(|user| &user.id);
        self.revoke_issued(&installation.key(), user, installation.grants())
            .await;
    }

    /// Revokes tokens that cannot be stored. If the response does not say where they were issued,
    /// `auth.test` does. Otherwise only rotating tokens are revoked, because that ends only these.
    pub(super) async fn revoke_unusable(&self, unusable: &Unusable, known: &Known) {
        known.add(|flow| {
            flow.app_id.clone_from(&unusable.app_id);
            flow.home.clone_from(&unusable.home);
            flow.installed_by.clone_from(&unusable.user_id);
        });
        tracing::error!(
            what = unusable.what,
            tenant = tenant(&known.flow()),
            "Slack issued tokens that cannot be stored; they are revoked unless they may be in use"
        );
        let grants = unusable.grants.each_ref().map(Option::as_ref);
        let mut home = unusable.home.clone();
        let mut user = unusable.user_id.clone();
        for (at, grant) in grants.iter().enumerate() {
            let Some(grant) = grant else { continue };
            if home.is_some() && (at == 0 || user.is_some()) {
                continue;
            }
            let Ok(test) = self.slack.auth_test(&grant.access_token).await else {
                continue;
            };
            if at == 1 {
                user = user.or(test.user_id);
            }
            if home.is_none() {
                home = named_by(test.enterprise_id, test.team_id);
            }
        }
        known.add(|flow| {
            flow.home.clone_from(&home);
            flow.installed_by.clone_from(&user);
        });
        let key = home.as_ref().map(Home::key);
        // Without its owner, it is unknown whether a user's token is in use.
        let is_known = [key.is_some(), key.is_some() && user.is_some()];
        let mut owned = [None; 2];
        for (at, grant) in grants.into_iter().enumerate() {
            if is_known[at] {
                owned[at] = grant;
            } else if let Some(grant) = grant.filter(|grant| grant.refresh_token.is_some()) {
                self.revoke_grant(None, grant).await;
            }
        }
        if let Some(key) = key {
            self.revoke_issued(&key, user.as_ref(), owned).await;
        }
    }

    async fn revoke_issued(
        &self,
        key: &InstallationKey,
        user: Option<&UserId>,
        issued: [Option<&Grant>; 2],
    ) {
        let stored = self.installations.fetch(key, user);
        let stored = match in_time(Instant::now() + STORE_PATIENCE, stored).await {
            Ok(stored) => stored,
            Err(error) => {
                tracing::error!(
                    tenant = %key,
                    error = error_chain(&error),
                    "the tokens of a refused installation are not revoked: the store could not be \
                     read, and they may be in use"
                );
                return;
            }
        };
        let stored = stored
            .as_ref()
            .map(|stored| stored.grants())
            .unwrap_or_default();
        for (issued, stored) in issued.into_iter().zip(stored) {
            let Some(issued) = issued else { continue };
            let in_use = stored.is_some_and(|stored| {
                issued.refresh_token.is_none()
                    || same(stored.access_token.expose(), issued.access_token.expose())
            });
            if in_use {
                tracing::info!(
                    tenant = %key,
                    "a refused installation's token is kept: the stored installation may use it"
                );
                continue;
            }
            self.revoke_grant(Some(key), issued).await;
        }
    }

    async fn revoke_grant(&self, tenant: Option<&InstallationKey>, grant: &Grant) {
        let tenant = tenant.map(tracing::field::display);
        // The refresh token first, so that it cannot issue a new pair.
        if let Some(token) = &grant.refresh_token
            && let Err(error) = self.slack.auth_revoke_refresh_token(token).await
        {
            tracing::error!(
                tenant,
                error = error_chain(&error),
                "the refresh token of a refused installation could not be revoked"
            );
        }
        if let Err(error) = self.slack.auth_revoke(&grant.access_token).await {
            tracing::error!(
                tenant,
                error = error_chain(&error),
                "the token of a refused installation could not be revoked"
            );
        }
    }
}

/// Returns where a token was issued, by the ids of `auth.test`. It names no workspace for an
/// org-wide token.
fn named_by(enterprise: Option<EnterpriseId>, team: Option<TeamId>) -> Option<Home> {
    let is_org = team.is_none();
    let enterprise = enterprise.map(|id| Enterprise { id, name: None });
    let team = team.map(|id| Team { id, name: None });
    Home::new(enterprise, team, is_org).ok()
}

/// How long an installation is kept in memory while the database is away, as a refresh's pair is.
const KEEP_TRYING: Duration = Duration::from_secs(10 * 60);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The pauses between attempts to store. A person is waiting, so the sum is only a few seconds.
const STORE_PAUSES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(900),
    Duration::from_millis(2700),
];
