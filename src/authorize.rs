//! From a verified request to the tokens that may serve it.

use std::fmt;
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

/// Finds the installation that a request concerns. Cheap to clone.
#[derive(Clone)]
pub struct Authorizer {
    installations: Arc<dyn LifecycleStore>,
    rotator: Option<TokenRotator>,
    clock: Clock,
}

impl Authorizer {
    /// An authorizer over this store.
    #[must_use]
    pub fn new(installations: impl LifecycleStore) -> Self {
        Self {
            installations: Arc::new(installations),
            rotator: None,
            clock: Clock::default(),
        }
    }

    /// The same authorizer, which keeps rotating tokens current by this rotator. A request waits
    /// for a refresh for 2 s at most: Slack gives a handler 3 s.
    #[must_use]
    pub fn with_rotator(self, rotator: &TokenRotator) -> Self {
        Self {
            rotator: Some(rotator.within(PATIENCE)),
            ..self
        }
    }

    /// The same authorizer, with another clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// The tokens that may serve this request: the bot's, and the acting user's own if that very
    /// user authorised the app.
    ///
    /// Where the request shows that a workspace has joined or left an organisation, the stored
    /// enterprise id is brought up to date.
    ///
    /// # Errors
    ///
    /// [`AuthorizeError`]. A database that does not answer is never taken for an app that is not
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
            // An organisation's request may fall back to a workspace only inside of it.
            if via == ResolvedVia::OrgToWorkspace && enterprise != tenant.enterprise() {
                continue;
            }
            // A tenant on hold gets nothing, by no other way either.
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

    /// Whether a request that names an org-wide installation is from a workspace whose own
    /// installation is on hold. Looked at second, a workspace is known to have none.
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

    /// Whether an org-wide installation may serve the workspace that the request is from.
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

    /// Leaves out what has expired: an old token is never handed out.
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

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorizer")
            .field("installations", &self.installations)
            .finish_non_exhaustive()
    }
}

/// The installation with tokens that are current. A bot that cannot be made so fails the request;
/// a user's token that cannot is left out, unless there is nothing else.
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
                    "a user's token cannot be made current"
                );
            }
            Ok(refreshed.installation)
        }
    }
}

/// Half of what is left of Slack's 3 s after the network's share goes to the handler.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a request may be served with. At least one of the two tokens is there.
#[derive(Debug)]
#[non_exhaustive]
pub struct AuthorizeResult {
    /// Whom the request concerns.
    pub tenant: Tenant,
    /// Which step of the resolution order found the installation.
    pub resolved_via: ResolvedVia,
    /// The installation, without tokens that have expired, and with no user's token but the
    /// acting user's.
    pub installation: Installation,
}

impl AuthorizeResult {
    /// A result as a handler gets it, for your tests: the installation, for a request of its own
    /// workspace.
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

    /// Returns the key of the installation: what your app's own tables should be keyed by. It
    /// stays the same when a workspace joins an organisation.
    #[must_use]
    pub fn installation_key(&self) -> InstallationKey {
        self.installation.key()
    }

    /// The bot, if the app has one there.
    #[must_use]
    pub fn bot(&self) -> Option<&Bot> {
        self.installation.bot.as_ref()
    }

    /// The bot's token.
    #[must_use]
    pub fn bot_token(&self) -> Option<&AccessToken> {
        self.bot().map(|bot| &bot.grant.access_token)
    }

    /// The bot's user, as it is mentioned.
    #[must_use]
    pub fn bot_user_id(&self) -> Option<&UserId> {
        self.bot().map(|bot| &bot.user_id)
    }

    /// The organisation, as far as known.
    #[must_use]
    pub fn enterprise_id(&self) -> Option<&EnterpriseId> {
        let stored = self
            .installation
            .home
            .enterprise()
            .map(|enterprise| &enterprise.id);
        self.tenant.enterprise().or(stored)
    }

    /// The workspace that the request is from; calls with an org-wide token may have to name it.
    #[must_use]
    pub fn team_id(&self) -> Option<&TeamId> {
        self.tenant
            .team()
            .or_else(|| self.installation.home.team().map(|team| &team.id))
    }

    /// The acting user's own authorisation, if they gave one.
    #[must_use]
    pub fn user(&self) -> Option<&User> {
        self.installation.user.as_ref()
    }

    /// The acting user's own token.
    #[must_use]
    pub fn user_token(&self) -> Option<&AccessToken> {
        self.user().map(|user| &user.grant.access_token)
    }

    /// The app, as it was installed.
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
    #[error("the installation's tokens have expired")]
    Expired,
    /// The request names no tenant that can be relied on.
    #[error("the request names no tenant")]
    NoTenant,
    /// There is an installation, but neither a bot nor an authorisation of this user.
    #[error("neither the bot nor this user has a token there")]
    NoToken,
    /// The organisation has taken the app away from this workspace.
    #[error("the organisation has not granted the app to this workspace")]
    NotGranted,
    /// The app is not installed there.
    #[error("the app is not installed there")]
    NotInstalled,
    /// An operator has put the tenant on hold.
    #[error("the tenant is on hold")]
    OnHold,
    /// The tokens have expired, or are about to, and could not be refreshed. The reason says
    /// whether to install again, to try again, or to look at the app's own configuration.
    #[error("the installation's tokens cannot be made current")]
    Refresh(#[source] rotation::Error),
    /// The request is for another app than the installed one.
    #[error("the request is for another app")]
    OtherApp,
    /// The store did not answer, or what it has does not open.
    #[error("the installation cannot be read")]
    Store(#[from] store::Error),
}

impl AuthorizeError {
    /// Whether the same request may be served later, with nothing changed by anybody.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refresh(error) => error.is_transient(),
            Self::Store(error) => error.is_transient(),
            _ => false,
        }
    }
}
