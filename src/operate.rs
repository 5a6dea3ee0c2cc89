//! An operator's actions on tenants: hold, release, revoke, purge and reconcile. All of them may be
//! repeated.

use std::sync::Arc;

use thiserror::Error;

use crate::clock::Clock;
use crate::error_chain::error_chain;
use crate::events::{Handled, Lifecycle, LifecycleError};
use crate::installation::{Hold, Installation, Revision};
use crate::slack::{self, ClientCredentials, ErrorClass, SlackClient};
use crate::store::{self, AuditContext, ChainKey, Credential, LifecycleStore, Mark, RotationStore};
use crate::tenant::{InstallationKey, UserId};

mod heal;
mod judge;
mod proof;
mod reconcile;

pub use proof::Verdict;
pub use reconcile::{Examined, ReconcileConfig, Reconciled};

/// Runs an operator's actions on tenants. Cheap to clone.
///
/// Reasons are stored as plain text in the tenant's row, or with its departure. They have at most
/// 500 characters; longer ones are cut. Do not put secrets into them.
///
/// ```
/// # async fn example(
/// #     store: slack_installs::EncryptedStore<slack_installs::backend::MemoryBackend>,
/// #     slack: slack_installs::slack::SlackClient,
/// #     lifecycle: slack_installs::Lifecycle,
/// #     credentials: slack_installs::slack::ClientCredentials,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use slack_installs::operate::Operator;
/// use slack_installs::{InstallationKey, TeamId};
///
/// let operator = Operator::new(store, slack, lifecycle, credentials);
/// let tenant = InstallationKey::workspace(TeamId::new("T0ALPHA0001")?);
/// operator.freeze(&tenant, "ticket 4711: account taken over").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Operator {
    store: Arc<dyn LifecycleStore>,
    chains: Arc<dyn RotationStore>,
    slack: SlackClient,
    lifecycle: Lifecycle,
    credentials: Arc<ClientCredentials>,
    clock: Clock,
}

/// The result of revoking a tenant. In every case, its data is deleted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RevokeOutcome {
    /// Nothing was stored.
    NotInstalled,
    /// The tokens were revoked one by one. Slack may still show the app as installed.
    TokensRevoked,
    /// Slack uninstalled the app there, now or earlier.
    Uninstalled,
}

/// Why an operator's action failed or is incomplete. You may repeat it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OperateError {
    /// Nothing is stored for this tenant.
    #[error("the app is not installed for this tenant")]
    NotInstalled,
    /// The purge, or your app's hook, failed.
    #[error("the tenant was not purged, or the hook after the purge failed")]
    Purge(#[from] LifecycleError),
    /// Slack did not revoke the tokens. The tenant is on hold, and its data is kept.
    #[error(
        "Slack did not revoke the tenant's tokens; the tenant is on hold, so repeat the action"
    )]
    Slack(#[source] slack::Error),
    /// The store could not read or change the tenant.
    #[error("the tenant's rows could not be read or changed")]
    Store(#[from] store::Error),
}

impl Operator {
    /// Creates an operator for the installations in this store. Purges run through `lifecycle`, so
    /// that its hooks are called.
    #[must_use]
    pub fn new(
        store: impl LifecycleStore + RotationStore,
        slack: SlackClient,
        lifecycle: Lifecycle,
        credentials: ClientCredentials,
    ) -> Self {
        let store = Arc::new(store);
        Self {
            chains: Arc::clone(&store) as Arc<dyn RotationStore>,
            store,
            slack,
            lifecycle,
            credentials: Arc::new(credentials),
            clock: Clock::default(),
        }
    }

    /// Uses this clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Puts a tenant on hold. Its data is kept and no token is handed out, even after a reinstall,
    /// or an uninstall, until [`unfreeze`](Self::unfreeze). If the tenant is already on hold, the
    /// first reason is kept.
    ///
    /// A workspace that an org-wide installation serves has no installation of its own, so it
    /// cannot be put on hold.
    ///
    /// # Errors
    ///
    /// [`OperateError::NotInstalled`], [`OperateError::Store`].
    ///
    /// # Cancel safety
    ///
    /// The hold is either stored or not stored.
    pub async fn freeze(&self, key: &InstallationKey, reason: &str) -> Result<(), OperateError> {
        let held = self.hold(key, true, reason);
        context("freeze", reason).scope(held).await
    }

    /// Ends a hold. This reason replaces the reason of the hold.
    ///
    /// # Errors
    ///
    /// [`OperateError::NotInstalled`], [`OperateError::Store`].
    ///
    /// # Cancel safety
    ///
    /// The change is either stored or not stored.
    pub async fn unfreeze(&self, key: &InstallationKey, reason: &str) -> Result<(), OperateError> {
        let held = self.hold(key, false, reason);
        context("unfreeze", reason).scope(held).await
    }

    /// Removes the app from a tenant: puts it on hold, uninstalls it at Slack, purges its data, and
    /// calls your app's hook.
    ///
    /// Slack refuses `apps.uninstall` for some bot tokens (`no_permission`), and for expired
    /// tokens. Then every token is revoked individually, refresh tokens included. Without token
    /// rotation, that uninstalls the app. With token rotation, the app stays in the workspace's
    /// list.
    ///
    /// The hold of this call ends with the purge, so the tenant may install the app again. A hold
    /// that was on before, also from an attempt that failed, stays until
    /// [`unfreeze`](Self::unfreeze).
    ///
    /// # Errors
    ///
    /// [`OperateError`]. After [`OperateError::Slack`], the tenant is on hold and its data is kept,
    /// because the tokens are needed to revoke them: repeat the call. Slack's `invalid_auth` is an
    /// error too, because this machine's address may not be on the app's allow-list. If the tokens
    /// are certainly dead, call [`purge`](Self::purge).
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any point, and repeated.
    pub async fn revoke(
        &self,
        key: &InstallationKey,
        reason: &str,
    ) -> Result<RevokeOutcome, OperateError> {
        let revoked = self.revoke_now(key, reason);
        context("revoke", reason).scope(revoked).await
    }

    async fn revoke_now(
        &self,
        key: &InstallationKey,
        reason: &str,
    ) -> Result<RevokeOutcome, OperateError> {
        let before = self.store.held(key).await?;
        match self.hold(key, true, reason).await {
            Err(OperateError::NotInstalled) => return self.gone_before(key).await,
            outcome => outcome?,
        }
        let by = self.installer(key).await?;
        let Some(installation) = self.store.fetch(key, by.as_ref()).await? else {
            return self.gone_before(key).await;
        };
        let outcome = self.revoke_at_slack(key, &installation).await?;
        tracing::info!(tenant = %key, reason, ?outcome, "an operator revoked a tenant");
        let purged = self
            .purge_revision(key, installation.revision, reason)
            .await;
        let is_ours = !before.is_some_and(|hold| hold.is_on);
        let is_purged = matches!(
            purged,
            Ok(()) | Err(OperateError::Purge(LifecycleError::Hook(_)))
        );
        if is_ours && is_purged {
            self.unfreeze_if_known(key, reason).await?;
        }
        purged?;
        Ok(outcome)
    }

    async fn unfreeze_if_known(
        &self,
        key: &InstallationKey,
        reason: &str,
    ) -> Result<(), OperateError> {
        match self.hold(key, false, reason).await {
            Err(OperateError::NotInstalled) => Ok(()),
            outcome => outcome,
        }
    }

    /// Calls the hook of a tenant that is not installed: an earlier attempt may have purged it
    /// without that call.
    async fn gone_before(&self, key: &InstallationKey) -> Result<RevokeOutcome, OperateError> {
        Ok(match self.lifecycle.report_pending(key).await? {
            Handled::Purged => RevokeOutcome::Uninstalled,
            _ => RevokeOutcome::NotInstalled,
        })
    }

    /// Deletes all data of a tenant and calls your app's hook, without a call to Slack. Use it if
    /// the tenant's events were lost, or if its rows cannot be decrypted. Tokens that are still
    /// valid stay valid at Slack; [`revoke`](Self::revoke) ends them.
    ///
    /// Returns whether any data existed.
    ///
    /// # Errors
    ///
    /// [`OperateError::Purge`], [`OperateError::Store`].
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any point, and repeated.
    pub async fn purge(&self, key: &InstallationKey, reason: &str) -> Result<bool, OperateError> {
        let purged = self.purge_now(key, reason);
        context("purge", reason).scope(purged).await
    }

    async fn purge_now(&self, key: &InstallationKey, reason: &str) -> Result<bool, OperateError> {
        let Some((revision, _)) = self.store.glance(key).await? else {
            return Ok(self.lifecycle.report_pending(key).await? == Handled::Purged);
        };
        tracing::info!(tenant = %key, reason, "an operator purged a tenant");
        self.purge_revision(key, revision, reason).await?;
        Ok(true)
    }

    async fn purge_revision(
        &self,
        key: &InstallationKey,
        revision: Revision,
        reason: &str,
    ) -> Result<(), OperateError> {
        match self.lifecycle.purge(key, revision, reason).await {
            // Slack's own event already purged the tenant.
            Err(LifecycleError::Store(store::Error::Conflict))
                if self.store.glance(key).await?.is_none() =>
            {
                self.lifecycle.report_pending(key).await?;
            }
            left => left?,
        }
        Ok(())
    }

    async fn hold(
        &self,
        key: &InstallationKey,
        is_on: bool,
        reason: &str,
    ) -> Result<(), OperateError> {
        let hold = Hold {
            is_on,
            reason: reason.chars().take(store::MAX_REASON).collect(),
            at: self.clock.now(),
        };
        if self.store.hold(key, &hold).await? {
            tracing::info!(tenant = %key, is_on, reason, "an operator changed a tenant's hold");
            Ok(())
        } else {
            Err(OperateError::NotInstalled)
        }
    }

    async fn installer(&self, key: &InstallationKey) -> Result<Option<UserId>, OperateError> {
        let installation = self.store.fetch(key, None).await?;
        Ok(installation.and_then(|it| it.installation.installed_by))
    }

    async fn revoke_at_slack(
        &self,
        key: &InstallationKey,
        installation: &Installation,
    ) -> Result<RevokeOutcome, OperateError> {
        // Slack may refuse to uninstall with a bot's token, and accept the installing user's token.
        for grant in installation.grants().into_iter().flatten() {
            let token = &grant.access_token;
            match self.slack.apps_uninstall(&self.credentials, token).await {
                Ok(()) => return Ok(RevokeOutcome::Uninstalled),
                Err(error) if !may_go_on(&error) => return Err(OperateError::Slack(error)),
                Err(error) => {
                    tracing::info!(
                        tenant = %key,
                        error = error_chain(&error),
                        "Slack refused apps.uninstall for a token; the next token is tried"
                    );
                }
            }
        }
        self.revoke_chain(key, Credential::Bot).await?;
        for user in self.store.users(key).await? {
            self.revoke_chain(key, Credential::User(user)).await?;
        }
        Ok(RevokeOutcome::TokensRevoked)
    }

    /// Revokes all tokens of a chain, the refresh tokens first, so that they cannot issue new
    /// pairs. A refresh in progress may have stored a new pair in the meantime; its tokens are
    /// revoked as well.
    async fn revoke_chain(
        &self,
        key: &InstallationKey,
        credential: Credential,
    ) -> Result<(), OperateError> {
        let tenant = key.clone();
        let key = ChainKey { credential, tenant };
        let mut revoked = Vec::new();
        for _ in 0..ROUNDS {
            // An update without a change reads the database, not a cache.
            let Some(stored) = self.chains.update(&key, None, &mut |_| None).await? else {
                return Ok(());
            };
            let primary = stored.grant.refresh_token.iter();
            let new: Vec<_> = primary
                .chain(&stored.alternates)
                .filter(|token| !revoked.contains(&Mark::of(token)))
                .collect();
            for token in &new {
                self.gone(self.slack.auth_revoke_refresh_token(token).await)?;
                revoked.push(Mark::of(token));
            }
            let access = Mark::of_access_token(&stored.grant.access_token);
            if revoked.contains(&access) {
                return Ok(());
            }
            self.gone(self.slack.auth_revoke(&stored.grant.access_token).await)?;
            revoked.push(access);
        }
        Ok(())
    }

    fn gone(&self, revoked: Result<(), slack::Error>) -> Result<(), OperateError> {
        match revoked {
            Err(error) if !may_go_on(&error) => Err(OperateError::Slack(error)),
            _ => Ok(()),
        }
    }
}

debug_fields!(Operator: store, slack);

/// Returns whether nothing more can be done with this token after this error: it is dead, expired,
/// or lacks the permission. `invalid_auth` is not included, because Slack also returns it to an
/// address that is not on the app's allow-list.
fn may_go_on(error: &slack::Error) -> bool {
    let class = error.class();
    class.ends_token() || matches!(class, ErrorClass::InvalidToken | ErrorClass::Scope)
}

/// Returns on whose behalf an operator acts, for the audit log. Your app may have named a person.
fn context(action: &str, reason: &str) -> AuditContext {
    AuditContext::current_or("operator").because(&format!("{action}: {reason}"))
}

/// How often the row is read again. A refresh in progress at the time of the hold adds one more
/// pair.
const ROUNDS: usize = 5;
