//! What happens when an app is removed: events that need no token, judged against the clock.
//!
//! Slack delivers them late, twice, out of order, and sometimes after a reinstall. So an event is
//! compared with the time of the installation, both on Slack's clock, and nothing is purged on an
//! event that may be about an earlier installation without asking `auth.test`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use thiserror::Error;

use crate::installation::{Installation, Revision};
use crate::request::{PayloadError, VerifiedRequest};
use crate::secret::AccessToken;
use crate::slack::{self, ErrorClass, SlackClient};
use crate::store::{self, Delete, InstallationStore};
use crate::tenant::{InstallationKey, ResolvedVia, UserId};

/// Purges what Slack says is gone. Cheap to clone.
#[derive(Clone)]
pub struct Lifecycle {
    installations: Arc<dyn InstallationStore>,
    slack: SlackClient,
    hooks: Option<Arc<dyn LifecycleHooks>>,
}

/// Called when a tenant's data goes, so that the host purges its own.
///
/// # Contract
///
/// 1. `uninstalled` is called before the event is answered; it may be called more than once for
///    one uninstallation, since Slack repeats an event that was not answered.
///
/// # Consistency
///
/// A crash between the purge and the call is repaired by Slack's repetition only while that
/// lasts; see the crate's documentation on what is not promised yet.
///
/// # Cancel safety
///
/// The library awaits it on a task of its own.
///
/// # Errors
///
/// An error is answered with a status that makes Slack repeat the event.
#[async_trait::async_trait]
pub trait LifecycleHooks: fmt::Debug + Send + Sync + 'static {
    /// The app is gone from this workspace or organisation.
    async fn uninstalled(
        &self,
        key: &InstallationKey,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// What was done about an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Handled {
    /// It was about an earlier installation, or about nothing that is stored.
    Ignored,
    /// It is no event of the app's own life.
    NotLifecycle,
    /// Everything of the tenant was removed.
    Purged,
    /// Some credentials of the tenant were removed.
    Revoked,
}

/// Why an event could not be handled. Slack should repeat it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LifecycleError {
    /// The host's hook failed.
    #[error("the host could not purge its own data")]
    Hook(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The event's own fields are not of the documented form.
    #[error("the event is not of the documented form")]
    Event(#[from] PayloadError),
    /// The installation changed again and again while the event was judged.
    #[error("the installation changed while the event was judged")]
    Moved,
    /// Slack did not say whether the installation still lives.
    #[error("it could not be found out whether the installation still lives")]
    Slack(#[source] slack::Error),
    /// The store did not do it.
    #[error("the installation could not be removed")]
    Store(#[from] store::Error),
}

impl Lifecycle {
    /// Handles events for installations in this store.
    #[must_use]
    pub fn new(installations: impl InstallationStore, slack: SlackClient) -> Self {
        Self {
            installations: Arc::new(installations),
            slack,
            hooks: None,
        }
    }

    /// The same, with hooks of the host's.
    #[must_use]
    pub fn with_hooks(self, hooks: impl LifecycleHooks) -> Self {
        Self {
            hooks: Some(Arc::new(hooks)),
            ..self
        }
    }

    /// Whether this is an event that [`handle`](Self::handle) acts on.
    #[must_use]
    pub fn concerns(request: &VerifiedRequest) -> bool {
        matches!(request.event_type(), Some(APP_UNINSTALLED | TOKENS_REVOKED))
    }

    /// Handles `app_uninstalled` and `tokens_revoked`. When it returns `Ok`, what had to go is
    /// durably gone, and Slack may be answered 200.
    ///
    /// # Errors
    ///
    /// [`LifecycleError`]: answer with a 5xx, so that Slack repeats the event.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it has done all or nothing of each removal; handling the repeated event ends it.
    pub async fn handle(&self, request: &VerifiedRequest) -> Result<Handled, LifecycleError> {
        if !Self::concerns(request) {
            return Ok(Handled::NotLifecycle);
        }
        // Neither event carries `authorizations`: the ids of its envelope are the tenant's.
        let (Some(tenant), Some(at)) = (request.tenant(), request.event_time()) else {
            tracing::warn!(request = ?request, "a lifecycle event names no tenant or no time");
            return Ok(Handled::Ignored);
        };
        // Exactly the tenant that the event names: a fallback would purge somebody else.
        let named = |(via, key)| (via == ResolvedVia::Named).then_some(key);
        let Some(key) = tenant.candidates().into_iter().find_map(named) else {
            return Ok(Handled::Ignored);
        };
        let tokens = match request.event_type() {
            Some(TOKENS_REVOKED) => Some(request.payload::<TokensRevoked>()?.event.tokens),
            _ => None,
        };
        for _ in 0..ATTEMPTS {
            let outcome = match &tokens {
                None => self.uninstalled(&key, at).await,
                Some(tokens) => self.revoked(&key, at, tokens).await,
            };
            match outcome {
                // A reinstall came between the judgement and the removal: judge again.
                Err(LifecycleError::Store(store::Error::Conflict)) => {}
                outcome => return outcome,
            }
        }
        Err(LifecycleError::Moved)
    }

    async fn uninstalled(
        &self,
        key: &InstallationKey,
        at: SystemTime,
    ) -> Result<Handled, LifecycleError> {
        let purged = match self.installations.fetch(key, None).await {
            Ok(Some(installation)) => {
                if !self.ended(&installation, at).await? {
                    tracing::info!(tenant = %key, "an app_uninstalled is about an earlier installation");
                    return Ok(Handled::Ignored);
                }
                self.installations
                    .delete(key, &Delete::all().only(revision(&installation)))
                    .await?
            }
            // Nothing is stored, or rows without facts are left of something; and what cannot be
            // read cannot be judged, but Slack says that it is gone.
            Ok(None) | Err(store::Error::Unreadable(_)) => {
                self.installations.delete(key, &Delete::all()).await?
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(hooks) = &self.hooks {
            hooks.uninstalled(key).await.map_err(LifecycleError::Hook)?;
        }
        tracing::info!(tenant = %key, purged, "uninstalled");
        Ok(if purged {
            Handled::Purged
        } else {
            Handled::Ignored
        })
    }

    async fn revoked(
        &self,
        key: &InstallationKey,
        at: SystemTime,
        tokens: &RevokedTokens,
    ) -> Result<Handled, LifecycleError> {
        let mut any = false;
        for user in &tokens.oauth {
            let Ok(user) = UserId::new(user.as_str()) else {
                continue;
            };
            let Some(installation) = self.installations.fetch(key, Some(&user)).await? else {
                return Ok(Handled::Ignored);
            };
            let Some(stored) = &installation.user else {
                continue;
            };
            if self
                .is_revoked(&installation, &stored.grant.access_token, at)
                .await?
            {
                let delete = Delete::user(user).only(revision(&installation));
                any |= self.installations.delete(key, &delete).await?;
            }
        }
        if !tokens.bot.is_empty() {
            let Some(installation) = self.installations.fetch(key, None).await? else {
                return Ok(if any {
                    Handled::Revoked
                } else {
                    Handled::Ignored
                });
            };
            // Ids of other apps' bots are none of ours; `oauth` alone never touches the bot.
            let ours = installation
                .bot
                .as_ref()
                .filter(|bot| tokens.bot.iter().any(|id| id == bot.user_id.as_str()));
            if let Some(bot) = ours
                && self
                    .is_revoked(&installation, &bot.grant.access_token, at)
                    .await?
            {
                let delete = Delete::bot().only(revision(&installation));
                any |= self.installations.delete(key, &delete).await?;
            }
        }
        tracing::info!(tenant = %key, removed = any, "tokens were revoked");
        Ok(if any {
            Handled::Revoked
        } else {
            Handled::Ignored
        })
    }

    /// Whether an uninstallation at that time ended this installation, and not an earlier one.
    async fn ended(
        &self,
        installation: &Installation,
        at: SystemTime,
    ) -> Result<bool, LifecycleError> {
        if let Some(bot) = &installation.bot {
            return self
                .is_revoked(installation, &bot.grant.access_token, at)
                .await;
        }
        // Without a bot, the person who installed has the token that can be asked about.
        let by = installation.installed_by.as_ref();
        let with_user = self.installations.fetch(&installation.key(), by).await?;
        match with_user
            .as_ref()
            .and_then(|installation| installation.user.as_ref())
        {
            Some(user) => {
                self.is_revoked(installation, &user.grant.access_token, at)
                    .await
            }
            None => Ok(age(installation, at) != Age::Earlier),
        }
    }

    /// Whether an event of that time is about this token. In doubt, Slack is asked.
    async fn is_revoked(
        &self,
        installation: &Installation,
        token: &AccessToken,
        at: SystemTime,
    ) -> Result<bool, LifecycleError> {
        match age(installation, at) {
            Age::Earlier => return Ok(false),
            Age::Later => return Ok(true),
            Age::Ambiguous => {}
        }
        match self.slack.auth_test(token).await {
            Ok(_) => Ok(false),
            Err(error) => match error.class() {
                // Together with Slack's own event this is no allow-list's doing.
                ErrorClass::Dead | ErrorClass::Revoked => Ok(true),
                _ => Err(LifecycleError::Slack(error)),
            },
        }
    }
}

impl fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifecycle")
            .field("installations", &self.installations)
            .field("slack", &self.slack)
            .finish_non_exhaustive()
    }
}

/// What is read of a `tokens_revoked` event: ids of users, not tokens.
#[derive(Deserialize)]
struct TokensRevoked {
    event: TokensRevokedEvent,
}

#[derive(Deserialize)]
struct TokensRevokedEvent {
    #[serde(default)]
    tokens: RevokedTokens,
}

#[derive(Default, Deserialize)]
struct RevokedTokens {
    /// Users whose own tokens are revoked.
    #[serde(default)]
    oauth: Vec<String>,
    /// Bot users whose tokens are revoked.
    #[serde(default)]
    bot: Vec<String>,
}

/// An event's time beside an installation's, both on Slack's clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Age {
    /// The event is about something before the installation.
    Earlier,
    /// Too close to tell.
    Ambiguous,
    /// The event is about this installation.
    Later,
}

fn age(installation: &Installation, at: SystemTime) -> Age {
    let installed_at = installation.installed_at;
    match at.duration_since(installed_at) {
        Ok(after) if after > SURELY_AFTER => Age::Later,
        Err(before) if before.duration() > SURELY_BEFORE => Age::Earlier,
        _ => Age::Ambiguous,
    }
}

fn revision(installation: &Installation) -> Revision {
    installation
        .revision
        .expect("a fetched installation has a revision")
}

const APP_UNINSTALLED: &str = "app_uninstalled";
const TOKENS_REVOKED: &str = "tokens_revoked";

/// An event dispatched this long before the installation is about an earlier one. Both times are
/// Slack's, to the second, from different machines of theirs.
const SURELY_BEFORE: Duration = Duration::from_secs(5);

/// An event dispatched this long after the installation is about this one. `event_time` is when
/// Slack dispatched it, and that can be some minutes after what it tells of.
const SURELY_AFTER: Duration = Duration::from_secs(300);

/// How often an event is judged anew, when a reinstall comes in between each time.
const ATTEMPTS: usize = 10;
