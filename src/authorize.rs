//! Finds the tokens that may serve a verified request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::error_chain::error_chain;
use crate::installation::{Bot, Grant, Home, Installation, StoredInstallation, User};
use crate::request::VerifiedRequest;
use crate::rotation::{self, TokenRotator};
use crate::secret::AccessToken;
use crate::store::{self, LifecycleStore, in_time};
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

    /// Refreshes rotating tokens with this rotator. A request waits for a refresh only within the
    /// 2 s of [`authorize`](Self::authorize), whatever the rotator's patience is.
    #[must_use]
    pub fn with_rotator(mut self, rotator: &TokenRotator) -> Self {
        self.rotator = Some(rotator.clone());
        self
    }

    /// Uses this clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Returns the tokens that may serve this request: the bot's, the acting user's own token if
    /// that user authorised the app, and the token of the user for whom Slack delivers the event.
    ///
    /// If the request shows that a workspace joined or left an organisation, the stored enterprise
    /// id is updated.
    ///
    /// Takes at most 2 s, because Slack gives a handler 3 s: all reads, the update and a refresh
    /// share this time.
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
        let deadline = Instant::now() + PATIENCE;
        let found = in_time(deadline, self.find(request)).await?;
        let (via, installation, authorizing) = found;
        let (installation, authorizing) = match &self.rotator {
            Some(rotator) => {
                let left = deadline.saturating_duration_since(Instant::now());
                refreshed(&rotator.within(left), installation, authorizing).await?
            }
            None => {
                let authorizing = authorizing.and_then(|stored| stored.installation.user);
                (installation.installation, authorizing)
            }
        };
        self.usable(request, via, installation, authorizing)
    }

    /// Returns the key of the installation that serves this workspace or organisation: its own, or
    /// else the org-wide installation of its organisation, as for a request.
    ///
    /// Takes at most 2 s. Use it where no request says for whom your app works. The key's enterprise id is your app's
    /// statement that the workspace belongs to that organisation.
    ///
    /// # Errors
    ///
    /// [`AuthorizeError`], as for [`authorize`](Self::authorize). It never says that there is no
    /// token, because it reads none.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any point.
    pub async fn serving(&self, key: &InstallationKey) -> Result<InstallationKey, AuthorizeError> {
        let deadline = Instant::now() + PATIENCE;
        self.serving_by(deadline, key).await
    }

    /// Works like [`serving`](Self::serving), with another deadline.
    pub(crate) async fn serving_by(
        &self,
        deadline: Instant,
        key: &InstallationKey,
    ) -> Result<InstallationKey, AuthorizeError> {
        let ids = (key.enterprise().cloned(), key.team().cloned());
        let tenant = Tenant::new(ids.0, ids.1, key.is_org()).expect("a key has at least one id");
        let (_, installation) = in_time(deadline, self.resolve(&tenant, None)).await?;
        Ok(installation.key())
    }

    /// Returns what is stored for this request: the installation, and the installation with the
    /// authorizing user's token if that is another user.
    async fn find(&self, request: &VerifiedRequest) -> Result<Found, AuthorizeError> {
        let tenant = request.tenant().ok_or(AuthorizeError::NoTenant)?;
        let actor = request.user();
        let (via, mut installation) = self.resolve(tenant, actor).await?;
        if request
            .app_id()
            .is_some_and(|app_id| *app_id != installation.app_id)
        {
            return Err(AuthorizeError::OtherApp);
        }
        if via == ResolvedVia::Named {
            self.keep_current(request, tenant, &mut installation).await;
        }
        let authorizing = match request.authorizing_user() {
            Some(user) if Some(user) != actor => self.of_user(&installation.key(), user).await?,
            _ => None,
        };
        Ok((via, installation, authorizing))
    }

    /// Returns the installation with this user's token, and without the bot.
    async fn of_user(
        &self,
        key: &InstallationKey,
        user: &UserId,
    ) -> Result<Option<StoredInstallation>, AuthorizeError> {
        let Some(mut stored) = self.installations.fetch(key, Some(user)).await? else {
            return Ok(None);
        };
        if stored.is_on_hold() {
            return Err(AuthorizeError::OnHold);
        }
        stored.installation.bot = None;
        Ok(Some(stored))
    }

    async fn resolve(
        &self,
        tenant: &Tenant,
        user: Option<&UserId>,
    ) -> Result<(ResolvedVia, StoredInstallation), AuthorizeError> {
        let mut refusal = None;
        let candidates = tenant.candidates();
        for (via, key) in &candidates {
            let via = *via;
            let Some(installation) = self.installations.fetch(key, user).await? else {
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
            if self.is_workspace_on_hold(&installation, tenant).await? {
                return Err(AuthorizeError::OnHold);
            }
            if self.has_access(&installation, tenant).await? {
                return Ok((via, installation));
            }
            refusal = Some(AuthorizeError::NotGranted);
        }
        Err(refusal.unwrap_or_else(|| AuthorizeError::NotInstalled {
            tried: candidates.into_iter().map(|(_, key)| key).collect(),
        }))
    }

    /// Returns whether an org-wide installation would serve a workspace that is on hold itself. A
    /// hold stays when the workspace uninstalls the app.
    async fn is_workspace_on_hold(
        &self,
        installation: &Installation,
        tenant: &Tenant,
    ) -> Result<bool, store::Error> {
        match (&installation.home, tenant.team()) {
            (Home::Org(_), Some(team)) => {
                let workspace = InstallationKey::workspace(team.clone());
                let hold = self.installations.held(&workspace).await?;
                Ok(hold.is_some_and(|hold| hold.is_on))
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
        request: &VerifiedRequest,
        via: ResolvedVia,
        mut installation: Installation,
        authorizing: Option<User>,
    ) -> Result<AuthorizeResult, AuthorizeError> {
        let now = self.clock.now();
        let is_live = |grant: &Grant| grant.expires_at.is_none_or(|expires_at| now < expires_at);
        let had_token =
            installation.bot.is_some() || installation.user.is_some() || authorizing.is_some();
        installation.bot = installation.bot.filter(|bot| is_live(&bot.grant));
        installation.user = installation.user.filter(|user| is_live(&user.grant));
        let authorizing = authorizing.filter(|user| is_live(&user.grant));
        if installation.bot.is_none() && installation.user.is_none() && authorizing.is_none() {
            return Err(if had_token {
                AuthorizeError::Expired
            } else {
                AuthorizeError::NoToken
            });
        }
        let tenant = request.tenant().ok_or(AuthorizeError::NoTenant)?.clone();
        Ok(AuthorizeResult {
            tenant,
            resolved_via: via,
            installation,
            authorizing: match request.authorizing_user() {
                None => Authorizing::Nobody,
                user if user == request.user() => Authorizing::Actor,
                Some(_) => authorizing.map_or(Authorizing::Nobody, Authorizing::Other),
            },
        })
    }
}

debug_fields!(Authorizer: installations);

/// How an installation was found, the installation, and the authorizing user's.
type Found = (ResolvedVia, StoredInstallation, Option<StoredInstallation>);

/// Returns the installation and the authorizing user's authorisation, with fresh tokens. If the
/// bot's token cannot be refreshed, the request fails. A user's token that cannot be refreshed is
/// omitted; if no other token remains, the request fails.
async fn refreshed(
    rotator: &TokenRotator,
    installation: StoredInstallation,
    authorizing: Option<StoredInstallation>,
) -> Result<(Installation, Option<User>), AuthorizeError> {
    let tenant = installation.key();
    let authorizing = async {
        match authorizing {
            Some(stored) => {
                let refreshed = rotator.refreshed(stored).await;
                (refreshed.installation.user, refreshed.user_error)
            }
            None => (None, None),
        }
    };
    let (refreshed, (authorizing, lost)) =
        tokio::join!(rotator.refreshed(installation), authorizing);
    if let Some(error) = refreshed.bot_error {
        return Err(AuthorizeError::Refresh(error));
    }
    let installation = refreshed.installation;
    let has_token =
        installation.bot.is_some() || installation.user.is_some() || authorizing.is_some();
    let errors = [refreshed.user_error, lost];
    for error in errors.into_iter().flatten() {
        if !has_token {
            return Err(AuthorizeError::Refresh(error));
        }
        tracing::warn!(
            %tenant,
            error = error_chain(&error),
            "a user's token could not be refreshed, so the request is served without it"
        );
    }
    Ok((installation, authorizing))
}

/// Slack gives a handler 3 s. The network needs a part of that, and the handler needs time after
/// its tokens are found.
const PATIENCE: Duration = Duration::from_secs(2);

/// The tokens that may serve a request. At least one token exists: the bot's, the acting user's, or
/// the authorizing user's.
#[derive(Debug)]
#[non_exhaustive]
pub struct AuthorizeResult {
    /// The tenant of the request.
    pub tenant: Tenant,
    /// Which step of the resolution order found the installation.
    pub resolved_via: ResolvedVia,
    /// The installation, without expired tokens. It has no user's token except the acting user's.
    pub installation: Installation,
    authorizing: Authorizing,
}

/// The user whose authorisation made Slack deliver an event.
#[derive(Debug)]
enum Authorizing {
    /// The acting user, whose token is in the installation.
    Actor,
    /// Nobody, or a user who has no token.
    Nobody,
    Other(User),
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
            authorizing: Authorizing::Nobody,
        }
    }

    /// Returns the key of the installation. Use it as the key of your app's own tables, because it
    /// stays the same when a workspace joins an organisation.
    #[must_use]
    pub fn installation_key(&self) -> InstallationKey {
        self.installation.key()
    }

    /// Returns the authorisation of the user for whom Slack delivered the event. That user did not
    /// necessarily act. `None` if Slack delivered the event to the bot, and for all other requests.
    #[must_use]
    pub fn authorizing_user(&self) -> Option<&User> {
        match &self.authorizing {
            Authorizing::Actor => self.user(),
            Authorizing::Nobody => None,
            Authorizing::Other(user) => Some(user),
        }
    }

    /// Returns the token of the [authorizing user](Self::authorizing_user).
    #[must_use]
    pub fn authorizing_user_token(&self) -> Option<&AccessToken> {
        self.authorizing_user().map(|user| &user.grant.access_token)
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
    /// An installation exists, but has no bot, and no token of the acting or authorizing user.
    #[error("the installation has no token of the bot, the acting user or the authorizing user")]
    NoToken,
    /// The organisation revoked the app's access to this workspace.
    #[error("the organisation has not granted the app to this workspace")]
    NotGranted,
    /// The app is not installed for this tenant.
    #[error("the app is not installed for this tenant: looked for {}", Tried(.tried))]
    NotInstalled {
        /// The installations that could have served the tenant, in the order in which they were
        /// looked for.
        tried: Vec<InstallationKey>,
    },
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

/// Shows the keys that were looked for.
struct Tried<'a>(&'a [InstallationKey]);

impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, key) in self.0.iter().enumerate() {
            let separator = if number == 0 { "" } else { ", " };
            write!(f, "{separator}{key}")?;
        }
        Ok(())
    }
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
