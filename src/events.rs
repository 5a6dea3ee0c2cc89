//! What happens when an app is removed, granted or moved: events that need no token.
//!
//! Slack delivers them late, twice, out of order, and sometimes after a reinstall. So an event is
//! compared with the time of the installation, both on Slack's clock, and nothing is purged on an
//! event that may be about an earlier installation without asking `auth.test`: on one whose
//! `event_time` is less than five minutes after the installation. (Slack's repetitions of an event
//! keep its time.) Whatever is removed is guarded by the revision and the token that were judged.
//!
//! | event | what is done |
//! |---|---|
//! | `app_uninstalled` | the tenant is purged, and the host's hook told |
//! | `tokens_revoked` | the tokens of the listed users and bot go, if `auth.test` confirms it |
//! | `team_access_revoked`, `_granted` | the org-wide installation stops serving them, or resumes |
//! | `grid_migration_started` | nothing: the workspace will be back |
//! | `grid_migration_finished` | the workspace's enterprise id is brought up to date |
//!
//! All others are the host's, `app_uninstalled_team` among them: it tells admin apps of *other*
//! apps.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;

use crate::clock::Clock;
use crate::request::{LifecycleEvent, PayloadError, VerifiedRequest};
use crate::slack::{self, SlackClient};
use crate::store::{self, Departure, LifecycleStore};
use crate::tenant::{InstallationKey, ResolvedVia};

mod liveness;
mod org;
mod revoked;
mod uninstall;

/// Ends and changes installations as Slack says. Cheap to clone.
#[derive(Clone)]
pub struct Lifecycle {
    installations: Arc<dyn LifecycleStore>,
    slack: SlackClient,
    hooks: Option<Arc<dyn LifecycleHooks>>,
    clock: Clock,
}

/// Called after a tenant's installation was deleted, so that your app deletes its own data.
///
/// # Contract
///
/// 1. `uninstalled` is called at least once for each tenant that was purged: what is to be told
///    is stored in the same commit that purges, and [`Lifecycle::resume_pending`] tells it again
///    until it succeeds. So it may be called twice, also at the same time. One that takes longer
///    than a minute is dropped and called again later.
///    A panic counts as an error.
/// 2. An uninstall event that arrives after a reinstall deletes nothing, and is not reported.
///
/// # Consistency
///
/// The app may be installed again by the time of the call, or during it. What your app has kept
/// since [`Departure::at`] then belongs to the new installation. So delete what was kept up to and
/// including the second of `at`, and keep what is newer, whether or not `is_installed_again`.
///
/// # Cancel safety
///
/// The future may be dropped at any point when the process ends; it is called again then.
///
/// # Errors
///
/// An error has it called again: an event is answered with a status that makes Slack repeat it.
///
/// # Example
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::{Arc, Mutex};
/// use std::time::{Duration, SystemTime};
///
/// use slack_installs::{Departure, InstallationKey, LifecycleHooks};
///
/// /// Notes and their times, as your app's clock has them (`app.clock().now()`).
/// #[derive(Clone, Debug, Default)]
/// struct Notes(Arc<Mutex<HashMap<InstallationKey, Vec<(SystemTime, String)>>>>);
///
/// #[async_trait::async_trait]
/// impl LifecycleHooks for Notes {
///     async fn uninstalled(
///         &self,
///         departure: &Departure,
///         _is_installed_again: bool,
///     ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///         let mut notes = self.0.lock().map_err(|_| "a panic elsewhere")?;
///         if let Some(notes) = notes.get_mut(&departure.key) {
///             let next_second = departure.at + Duration::from_secs(1);
///             notes.retain(|(written_at, _)| *written_at >= next_second);
///         }
///         Ok(())
///     }
/// }
/// ```
///
/// A hook exists before the app does, so it shares its state by an `Arc`, as above, or by a
/// connection pool.
#[async_trait::async_trait]
pub trait LifecycleHooks: fmt::Debug + Send + Sync + 'static {
    /// Deletes what your app keeps of this tenant. `is_installed_again` says whether the app was
    /// installed there again since: for messages, and for data without a time.
    async fn uninstalled(
        &self,
        departure: &Departure,
        is_installed_again: bool,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

#[async_trait::async_trait]
#[deny(clippy::missing_trait_methods)]
impl<H: LifecycleHooks + ?Sized> LifecycleHooks for Arc<H> {
    async fn uninstalled(
        &self,
        departure: &Departure,
        is_installed_again: bool,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        (**self).uninstalled(departure, is_installed_again).await
    }
}

/// What was done about an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Handled {
    /// It was about an earlier installation, or about nothing that is stored.
    Ignored,
    /// It is no event of the app's own life.
    NotLifecycle,
    /// What it says of workspaces was kept. The event is the host's as well.
    Noted,
    /// Everything of the tenant was removed, and the host told.
    Purged,
    /// Some credentials of the tenant were removed. The event is the host's as well.
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
    #[error("the installation could not be changed")]
    Store(#[from] store::Error),
}

impl LifecycleError {
    /// Whether handling the same event may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Hook(_) | Self::Moved => true,
            Self::Event(_) => false,
            Self::Slack(error) => error.is_transient(),
            Self::Store(error) => error.is_transient(),
        }
    }
}

impl Lifecycle {
    /// Handles events for installations in this store.
    #[must_use]
    pub fn new(installations: impl LifecycleStore, slack: SlackClient) -> Self {
        Self {
            installations: Arc::new(installations),
            slack,
            hooks: None,
            clock: Clock::default(),
        }
    }

    /// The same, with hooks of the host's. Every process that handles events should have them;
    /// one without purges and leaves nothing to tell.
    #[must_use]
    pub fn with_hooks(self, hooks: impl LifecycleHooks) -> Self {
        Self {
            hooks: Some(Arc::new(hooks)),
            ..self
        }
    }

    /// The same, with another clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Whether this is an event that [`handle`](Self::handle) acts on.
    #[must_use]
    pub fn concerns(request: &VerifiedRequest) -> bool {
        request.lifecycle_event().is_some()
    }

    /// Handles an event of the app's own life. When it returns `Ok`, what had to change has
    /// changed durably, and Slack may be answered 200.
    ///
    /// # Errors
    ///
    /// [`LifecycleError`]: answer with a 5xx, so that Slack repeats the event.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it has done all or nothing of each change; handling the repeated event, or
    /// [`resume_pending`](Self::resume_pending), ends it.
    pub async fn handle(&self, request: &VerifiedRequest) -> Result<Handled, LifecycleError> {
        let Some(event) = request.lifecycle_event() else {
            return Ok(Handled::NotLifecycle);
        };
        let (Some(tenant), Some(at)) = (request.tenant(), request.event_time()) else {
            tracing::warn!(request = ?request, "a lifecycle event names no tenant or no time");
            return Ok(Handled::Ignored);
        };
        // Exactly the tenant that the event names: a fallback would purge somebody else.
        let named = |(via, key)| (via == ResolvedVia::Named).then_some(key);
        let Some(key) = tenant.candidates().into_iter().find_map(named) else {
            return Ok(Handled::Ignored);
        };
        // Whether an organisation's event names a workspace as well is not documented.
        let org = |(via, key)| (via == ResolvedVia::WorkspaceToOrg).then_some(key);
        let org = tenant.candidates().into_iter().find_map(org);
        for _ in 0..ATTEMPTS {
            match self.apply(event, request, &key, org.as_ref(), at).await {
                // A reinstall came between the judgement and the change: judge again.
                Err(LifecycleError::Store(store::Error::Conflict)) => {}
                outcome => {
                    if let Ok(handled) = &outcome {
                        let event = event.name();
                        tracing::info!(tenant = %key, event, ?handled, "a lifecycle event");
                    }
                    return outcome;
                }
            }
        }
        Err(LifecycleError::Moved)
    }

    /// `org` is the organisation of the workspace that the event names, if it names both.
    async fn apply(
        &self,
        event: LifecycleEvent,
        request: &VerifiedRequest,
        key: &InstallationKey,
        org: Option<&InstallationKey>,
        at: SystemTime,
    ) -> Result<Handled, LifecycleError> {
        match event {
            LifecycleEvent::AccessGranted => {
                self.team_access(key, at, true, request.payload()?).await
            }
            LifecycleEvent::AccessRevoked => {
                self.team_access(key, at, false, request.payload()?).await
            }
            LifecycleEvent::AppUninstalled => self.app_uninstalled(key, org, at).await,
            LifecycleEvent::MigrationFinished => {
                self.migration_finished(key, at, request.payload()?).await
            }
            // The tokens answer `team_added_to_org` for a while; nothing is to be done.
            LifecycleEvent::MigrationStarted => Ok(Handled::Noted),
            LifecycleEvent::TokensRevoked => {
                let payload = request.payload()?;
                match self.tokens_revoked(key, at, &payload).await {
                    Ok(Handled::Ignored) if self.is_only_in(key, org).await? => {
                        self.tokens_revoked(org.unwrap_or(key), at, &payload).await
                    }
                    outcome => outcome,
                }
            }
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

/// How often an event is judged anew, when a reinstall comes in between each time.
const ATTEMPTS: usize = 10;

/// How long the host has for its own purge before another worker tells it again. Slack repeats
/// an event that was not answered after a minute as well.
const REPORT_AGAIN: Duration = Duration::from_secs(60);
