//! Finds the tokens that may serve a verified request.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::clock::Clock;
use crate::error_chain::error_chain;
use crate::installation::{Bot, Grant, Home, Installation, StoredInstallation, User};
use crate::request::VerifiedRequest;
use crate::rotation::{self, TokenRotator};
use crate::secret::AccessToken;
use crate::store::{self, LifecycleStore};
use crate::tenant::{AppId, EnterpriseId, InstallationKey, ResolvedVia, TeamId, Tenant, UserId};

mod membership;

/// Finds the installation of a request's tenant. Cheap to clone.
#[derive(Clone)]
pub struct Authorizer {
    installations: Arc<dyn LifecycleStore>,
    rotator: Option<TokenRotator>,
    clock: Clock,
}

impl Authorizer {
    /// Creates an authorizer over this store.
    #[must_use]
    pub fn new(installations: impl LifecycleStore) -> Self {
        Self {
            installations: Arc::new(installations),
            rotator: None,
            clock: Clock::default(),
        }
    }

    /// Refreshes rotating tokens with this rotator. A request waits for a refresh for at most 2 s,
    /// because Slack gives a handler 3 s.
    #[must_use]
    pub fn with_rotator(mut self, rotator: &TokenRotator) -> Self {
        self.rotator = Some(rotator.within(PATIENCE));
        self
    }

    /// Uses this clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Returns the tokens that may serve this request: the bot's, and the acting user's own token
    /// if that user authorised the app.
    ///
    /// If the request shows that a workspace joined or left an organisation, the stored enterprise
    /// id is updated.
    ///
    /// # Errors
    ///
    /// [`AuthorizeError`]. An unavailable database is never treated as an app that is not
    /// installed.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any point.
    pub async fn authorize(
        &self,
        request: &VerifiedRequest,
    ) -> Result<AuthorizeResult, AuthorizeError> {
        let tenant = request.tenant().ok_or(AuthorizeError::NoTenant)?;
        let (via, mut installation) = self.resolve(tenant, request.user()).await?;
        if request
            .app_id()
            .is_some_and(|app_id| *app_id != installation.app_id)
        {
            return Err(AuthorizeError::OtherApp);
        }
        if via == ResolvedVia::Named {
            self.keep_current(request, tenant, &mut installation).await;
        }
        let installation = match &self.rotator {
            Some(rotator) => refreshed(rotator, installation).await?,
            None => installation.installation,
        };
        self.usable(tenant.clone(), via, installation)
    }

    async fn resolve(
        &self,
        tenant: &Tenant,
        user: Option<&UserId>,
    ) -> Result<(ResolvedVia, StoredInstallation), AuthorizeError> {
        let mut refusal = AuthorizeError::NotInstalled;
        for (via, key) in tenant.candidates() {
            let Some(installation) = self.installations.fetch(&key, user).await? else {
                continue;
            };
            let enterprise = installation
                .home
                .enterprise()
                .map(|enterprise| &enterprise.id);
            // A request of an organisation may use a workspace's installation only if the workspace
            // belongs to that organisation.
            if via == ResolvedVia::OrgToWorkspace && enterprise != tenant.enterprise() {
                continue;
            }
            // A tenant on hold gets no token, not even from another installation.
            if installation.is_on_hold() {
                return Err(AuthorizeError::OnHold);
            }
            if self.is_workspace_on_hold(via, tenant).await? {
                return Err(AuthorizeError::OnHold);
            }
            if self.has_access(&installation, tenant).await? {
                return Ok((via, installation));
            }
            refusal = AuthorizeError::NotGranted;
        }
        Err(refusal)
    }

    /// Returns whether the request names an org-wide installation, and comes from a workspace whose
    /// own installation is on hold. For [`ResolvedVia::WorkspaceToOrg`], the workspace has no
    /// installation.
    async fn is_workspace_on_hold(
        &self,
        via: ResolvedVia,
        tenant: &Tenant,
    ) -> Result<bool, store::Error> {
        match (via, tenant.is_enterprise_install(), tenant.team()) {
            (ResolvedVia::Named, true, Some(team)) => {
                let workspace = InstallationKey::workspace(team.clone());
                let own = self.installations.fetch(&workspace, None).await?;
                Ok(own.is_some_and(|own| own.is_on_hold()))
            }
            _ => Ok(false),
        }
    }

    /// Returns whether an org-wide installation may serve the workspace of the request.
    async fn has_access(
        &self,
        installation: &Installation,
        tenant: &Tenant,
    ) -> Result<bool, store::Error> {
        match (&installation.home, tenant.team()) {
            (Home::Org(org), Some(team)) => self.installations.has_access(&org.id, team).await,
            _ => Ok(true),
        }
    }

    /// Removes expired tokens: an expired token is never handed out.
    fn usable(
        &self,
        tenant: Tenant,
        via: ResolvedVia,
        mut installation: Installation,
    ) -> Result<AuthorizeResult, AuthorizeError> {
        let now = self.clock.now();
        let is_live = |grant: &Grant| grant.expires_at.is_none_or(|expires_at| now < expires_at);
        let had_token = installation.bot.is_some() || installation.user.is_some();
        installation.bot = installation.bot.filter(|bot| is_live(&bot.grant));
        installation.user = installation.user.filter(|user| is_live(&user.grant));
        if installation.bot.is_none() && installation.user.is_none() {
            return Err(if had_token {
                AuthorizeError::Expired
            } else {
                AuthorizeError::NoToken
            });
        }
        Ok(AuthorizeResult {
            tenant,
            resolved_via: via,
            installation,
        })
    }
}

debug_fields!(Authorizer: installations);

/// Returns the installation with fresh tokens. If the bot's token cannot be refreshed, the request
/// fails. A user's token that cannot be refreshed is omitted; without a bot, the request fails.
async fn refreshed(
    rotator: &TokenRotator,
    installation: StoredInstallation,
) -> Result<Installation, AuthorizeError> {
    let tenant = installation.key();
    let refreshed = rotator.refreshed(installation).await;
    if let Some(error) = refreshed.bot_error {
        return Err(AuthorizeError::Refresh(error));
    }
    match (refreshed.user_error, &refreshed.installation.bot) {
        (Some(error), None) => Err(AuthorizeError::Refresh(error)),
        (error, _) => {
            if let Some(error) = error {
                tracing::warn!(
                    %tenant,
                    error = error_chain(&error),
                    "a user's token could not be refreshed, so the request is served without it"
                );
            }
            Ok(refreshed.installation)
        }
    }
}

/// Slack gives a handler 3 s. The network needs a part of that, and the handler needs time after
/// the refresh.
const PATIENCE: Duration = Duration::from_secs(2);

/// The tokens that may serve a request. At least one of the two tokens exists.
#[derive(Debug)]
#[non_exhaustive]
pub struct AuthorizeResult {
    /// The tenant of the request.
    pub tenant: Tenant,
    /// Which step of the resolution order found the installation.
    pub resolved_via: ResolvedVia,
    /// The installation, without expired tokens. It has no user's token except the acting user's.
    pub installation: Installation,
}

impl AuthorizeResult {
    /// Creates a result as a handler receives it, for your tests. The request comes from the
    /// installation's own workspace.
    ///
    /// ```
    /// use slack_installs::{AuthorizeResult, Installation};
    ///
    /// fn authorized(installation: Installation) -> AuthorizeResult {
    ///     AuthorizeResult::of(installation)
    /// }
    /// ```
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn of(installation: Installation) -> Self {
        let key = installation.key();
        let tenant = Tenant::new(key.enterprise().cloned(), key.team().cloned(), key.is_org());
        Self {
            tenant: tenant.expect("a key has at least one id"),
            resolved_via: ResolvedVia::Named,
            installation,
        }
    }

    /// Returns the key of the installation. Use it as the key of your app's own tables, because it
    /// stays the same when a workspace joins an organisation.
    #[must_use]
    pub fn installation_key(&self) -> InstallationKey {
        self.installation.key()
    }

    /// Returns the bot, if the installation has one.
    #[must_use]
    pub fn bot(&self) -> Option<&Bot> {
        self.installation.bot.as_ref()
    }

    /// Returns the bot's token.
    #[must_use]
    pub fn bot_token(&self) -> Option<&AccessToken> {
        self.bot().map(|bot| &bot.grant.access_token)
    }

    /// Returns the id of the bot's user, which messages use to mention the bot.
    #[must_use]
    pub fn bot_user_id(&self) -> Option<&UserId> {
        self.bot().map(|bot| &bot.user_id)
    }

    /// Returns the organisation, if it is known.
    #[must_use]
    pub fn enterprise_id(&self) -> Option<&EnterpriseId> {
        let stored = self
            .installation
            .home
            .enterprise()
            .map(|enterprise| &enterprise.id);
        self.tenant.enterprise().or(stored)
    }

    /// Returns the workspace of the request. Some calls with an org-wide token must name it.
    #[must_use]
    pub fn team_id(&self) -> Option<&TeamId> {
        self.tenant
            .team()
            .or_else(|| self.installation.home.team().map(|team| &team.id))
    }

    /// Returns the acting user's own authorisation, if the user gave one.
    #[must_use]
    pub fn user(&self) -> Option<&User> {
        self.installation.user.as_ref()
    }

    /// Returns the acting user's own token.
    #[must_use]
    pub fn user_token(&self) -> Option<&AccessToken> {
        self.user().map(|user| &user.grant.access_token)
    }

    /// Returns the id of the installed app.
    #[must_use]
    pub fn app_id(&self) -> &AppId {
        &self.installation.app_id
    }
}

/// Why a request cannot be served with a token.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuthorizeError {
    /// The tokens have expired and were not refreshed.
    #[error("the installation's tokens have expired and were not refreshed")]
    Expired,
    /// The request does not name a tenant with certainty.
    #[error("the request names no tenant")]
    NoTenant,
    /// An installation exists, but has no bot and no token of this user.
    #[error("the installation has no token of the bot or of this user")]
    NoToken,
    /// The organisation revoked the app's access to this workspace.
    #[error("the organisation has not granted the app to this workspace")]
    NotGranted,
    /// The app is not installed for this tenant.
    #[error("the app is not installed for this tenant")]
    NotInstalled,
    /// An operator put the tenant on hold.
    #[error("the tenant is on hold")]
    OnHold,
    /// The tokens have expired, or are about to expire, and could not be refreshed. The source says
    /// whether to install again, to try again, or to check the app's own configuration.
    #[error("the installation's tokens could not be refreshed")]
    Refresh(#[source] rotation::Error),
    /// The request is for an app other than the installed one.
    #[error("the request is for another app than the installed one")]
    OtherApp,
    /// The store is unavailable, or a stored row cannot be decrypted.
    #[error("the installation cannot be read from the store")]
    Store(#[from] store::Error),
}

impl AuthorizeError {
    /// Returns whether the same request may be served later without any other change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refresh(error) => error.is_transient(),
            Self::Store(error) => error.is_transient(),
            _ => false,
        }
    }
}
