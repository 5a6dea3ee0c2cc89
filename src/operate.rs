//! What an operator does to tenants: hold, release, revoke, reconcile. All of it may be repeated.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::clock::Clock;
use crate::error_chain::error_chain;
use crate::events::{Handled, Lifecycle, LifecycleError};
use crate::installation::{Hold, Installation, Revision};
use crate::slack::{self, ClientCredentials, ErrorClass, SlackClient};
use crate::store::{self, ChainKey, Credential, LifecycleStore, Mark, RotationStore};
use crate::tenant::{InstallationKey, UserId};

mod reconcile;

pub use reconcile::{Examined, ReconcileConfig, Reconciled, Verdict};

/// An operator's hand on tenants. Cheap to clone.
///
/// Reasons are kept in the clear in the tenant's row, or in the note of its departure; 500
/// characters at most, and nothing secret in them.
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

/// What came of revoking a tenant. Either way its data is gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RevokeOutcome {
    /// Nothing was stored.
    NotInstalled,
    /// Its tokens were revoked one by one; Slack may still show the app as installed.
    TokensRevoked,
    /// Slack has uninstalled the app there, or had before.
    Uninstalled,
}

/// Why an operator's action was not done, or not all of it. Repeating it is safe.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OperateError {
    /// Nothing is stored of this tenant.
    #[error("the app is not installed there")]
    NotInstalled,
    /// The purge, or what the host does on it, failed.
    #[error("the tenant could not be purged")]
    Purge(#[from] LifecycleError),
    /// Slack did not do it; the tenant is on hold and its data is kept.
    #[error("Slack did not revoke the tenant")]
    Slack(#[source] slack::Error),
    /// The store did not do it.
    #[error("the tenant could not be read or changed")]
    Store(#[from] store::Error),
}

impl Operator {
    /// An operator of the installations in this store. Purges go through `lifecycle`, so that
    /// its hooks are told.
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

    /// The same, with another clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Puts a tenant on hold: its data is kept and nothing is handed out, also after a reinstall,
    /// until [`unfreeze`](Self::unfreeze) or an uninstall. A tenant on hold keeps its first reason.
    ///
    /// A workspace that an org-wide installation serves has no installation of its own to hold.
    ///
    /// # Errors
    ///
    /// [`OperateError::NotInstalled`], [`OperateError::Store`].
    ///
    /// # Cancel safety
    ///
    /// Done or not done.
    pub async fn freeze(&self, key: &InstallationKey, reason: &str) -> Result<(), OperateError> {
        self.hold(key, true, reason).await
    }

    /// Ends a hold. The reason for that is kept instead.
    ///
    /// # Errors
    ///
    /// [`OperateError::NotInstalled`], [`OperateError::Store`].
    ///
    /// # Cancel safety
    ///
    /// Done or not done.
    pub async fn unfreeze(&self, key: &InstallationKey, reason: &str) -> Result<(), OperateError> {
        self.hold(key, false, reason).await
    }

    /// Takes the app away from a tenant: puts it on hold, uninstalls it at Slack, purges its
    /// data, and tells the host.
    ///
    /// Slack refuses `apps.uninstall` for some bot tokens (`no_permission`), and for tokens that
    /// have expired. Then every token is revoked by itself, refresh tokens too: without token
    /// rotation that uninstalls the app, with it the app stays in the workspace's list.
    ///
    /// # Errors
    ///
    /// [`OperateError`]. After [`OperateError::Slack`] the tenant is on hold with its data kept,
    /// since the tokens are needed to revoke them: repeat it. Slack's `invalid_auth` is an error
    /// too: this machine's address may not be on the app's allow-list. If the tokens are dead for
    /// certain, [`purge`](Self::purge) it.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any point, and repeated.
    pub async fn revoke(
        &self,
        key: &InstallationKey,
        reason: &str,
    ) -> Result<RevokeOutcome, OperateError> {
        match self.freeze(key, reason).await {
            // It may have been purged by an earlier attempt that did not reach the host.
            Err(OperateError::NotInstalled) => {
                return Ok(match self.lifecycle.report_pending(key).await? {
                    Handled::Purged => RevokeOutcome::Uninstalled,
                    _ => RevokeOutcome::NotInstalled,
                });
            }
            outcome => outcome?,
        }
        let by = self.installer(key).await?;
        let Some(installation) = self.store.fetch(key, by.as_ref()).await? else {
            return Ok(RevokeOutcome::NotInstalled);
        };
        let outcome = self.revoke_at_slack(key, &installation).await?;
        tracing::warn!(tenant = %key, reason, ?outcome, "an operator revoked a tenant");
        self.purge_revision(key, installation.revision, reason)
            .await?;
        Ok(outcome)
    }

    /// Removes all that is kept of a tenant, and tells the host, without asking Slack anything:
    /// for a tenant whose events were lost, or whose rows do not open. Its tokens, if they live,
    /// go on living at Slack: [`revoke`](Self::revoke) ends them.
    ///
    /// Answers whether anything was kept.
    ///
    /// # Errors
    ///
    /// [`OperateError::Purge`], [`OperateError::Store`].
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any point, and repeated.
    pub async fn purge(&self, key: &InstallationKey, reason: &str) -> Result<bool, OperateError> {
        let Some((revision, _)) = self.store.glance(key).await? else {
            return Ok(self.lifecycle.report_pending(key).await? == Handled::Purged);
        };
        tracing::warn!(tenant = %key, reason, "an operator purged a tenant");
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
            // Slack's own event was faster.
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
            tracing::warn!(tenant = %key, is_on, reason, "an operator's hold");
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
        // A bot's token may not uninstall where the installer's own may.
        for grant in installation.grants().into_iter().flatten() {
            let token = &grant.access_token;
            match self.slack.apps_uninstall(&self.credentials, token).await {
                Ok(()) => return Ok(RevokeOutcome::Uninstalled),
                Err(error) if !may_go_on(&error) => return Err(OperateError::Slack(error)),
                Err(error) => {
                    tracing::info!(
                        tenant = %key,
                        error = error_chain(&error),
                        "apps.uninstall is refused for a token"
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

    /// Revokes all tokens of a chain: the refresh tokens first, so that nothing new comes of
    /// them. A refresh that was under way may have brought others meanwhile; they go as well.
    async fn revoke_chain(
        &self,
        key: &InstallationKey,
        credential: Credential,
    ) -> Result<(), OperateError> {
        let tenant = key.clone();
        let key = ChainKey { credential, tenant };
        let mut revoked = Vec::new();
        for _ in 0..ROUNDS {
            // A step that changes nothing: what the database has, and no cache.
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

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator")
            .field("store", &self.store)
            .field("slack", &self.slack)
            .finish_non_exhaustive()
    }
}

/// Whether a refusal leaves nothing to do with this token: it is dead, expired, or may not. Not
/// `invalid_auth`, which is also what an address gets that is not on the app's allow-list.
fn may_go_on(error: &slack::Error) -> bool {
    let class = error.class();
    class.ends_token() || matches!(class, ErrorClass::InvalidToken | ErrorClass::Scope)
}

/// A refresh that was under way when the tenant was put on hold brings one pair more.
const ROUNDS: usize = 5;
