//! Handles lifecycle events: the app is removed, granted or moved. They need no token.
//!
//! Slack delivers these events late, twice, out of order, and sometimes after a reinstall. So the
//! event's time is compared with the time of the installation, both on Slack's clock. If
//! `event_time` is less than five minutes after the installation, the event may be about an earlier
//! installation. Then nothing is purged before `auth.test` confirms it. (Slack's repetitions of an
//! event keep its time.) A deletion applies only to the revision and the token that were checked.
//!
//! | event | effect |
//! |---|---|
//! | `app_uninstalled` | the tenant is purged, and your app's hook is called |
//! | `tokens_revoked` | dead tokens of the listed users and bot are deleted (`auth.test` decides) |
//! | `team_access_revoked`, `_granted` | workspaces lose or regain the org-wide installation |
//! | `grid_migration_started` | none: the workspace can be used again after the migration |
//! | `grid_migration_finished` | the workspace's enterprise id is updated |
//!
//! A hook is also called for each deleted authorization and for each lost workspace.
//!
//! Your app handles all other events. `app_uninstalled_team` is one of them: it notifies admin apps
//! about *other* apps.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::forward::forward;
use crate::request::{LifecycleEvent, PayloadError, VerifiedRequest};
use crate::slack::{self, SlackClient};
use crate::store::{self, Credential, Departure, LifecycleStore, Notice, in_time};
use crate::tenant::{InstallationKey, ResolvedVia, TeamId};

mod liveness;
mod notices;
mod org;
mod pending;
mod revoked;
mod uninstall;

/// Ends and changes installations when Slack sends lifecycle events. Cheap to clone.
#[derive(Clone)]
pub struct Lifecycle {
    installations: Arc<dyn LifecycleStore>,
    slack: SlackClient,
    hooks: Option<Arc<dyn LifecycleHooks>>,
    clock: Clock,
}

/// Called after something has ended: a tenant's installation, one authorization, a chain of tokens,
/// or the access to one workspace.
///
/// # Contract
///
/// 1. `uninstalled` is called at least once for each purged tenant. The departure is stored in the
///    same commit as the purge, and [`Lifecycle::resume_pending`] reports it again until the hook
///    succeeds. So the hook may be called twice, also at the same time. A call that takes longer
///    than a minute is dropped and repeated later. A panic counts as an error.
/// 2. An uninstall event that arrives after a reinstall deletes nothing, and is not reported.
/// 3. The other hooks are called in the same way, for a [`Notice`] that is stored in the same
///    commit as the change. There is one notice for each bot, user and workspace, and a later one
///    replaces it. So if several changes happen before your app is told, it hears of the last one.
/// 4. A notice is removed without a call of its hook if what ended is restored before: by a new
///    installation, a user who authorizes the app again, a chain that is alive again, or a
///    workspace that is granted again. It is also removed if the tenant is purged. Your app then
///    hears of the departure.
///
/// Some changes are found by a process that has no hooks. A chain that dies is always reported, by
/// the next process that has hooks and runs [`Lifecycle::resume_pending`]. For the other changes,
/// see [`Lifecycle::with_hooks`].
///
/// # Consistency
///
/// The app may be installed again before or during the call. Data that your app stored after
/// [`Departure::at`] then belongs to the new installation. So delete data up to and including the
/// second of `at`, and keep newer data, whether or not `is_installed_again`.
///
/// # Cancel safety
///
/// The future may be dropped at any point when the process ends. The hook is then called again.
///
/// # Errors
///
/// If a hook returns an error, it is called again. If `uninstalled` fails, the response to the
/// event also makes Slack repeat the event.
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
/// The hook is created before the app, so it shares state through an `Arc`, as above, or through a
/// connection pool.
///
/// This app also sends an e-mail to the customer whose tokens ended. Its install flow passed the
/// customer's number as the metadata:
///
/// ```
/// # use slack_installs::{Departure, LifecycleHooks};
/// use slack_installs::store::{Credential, Notice};
///
/// # #[derive(Debug)]
/// # struct Mailer;
/// # impl Mailer {
/// #     async fn send(&self, _: &str, _: &str) -> Result<(), std::io::Error> { Ok(()) }
/// # }
/// #[async_trait::async_trait]
/// impl LifecycleHooks for Mailer {
/// #   async fn uninstalled(
/// #       &self,
/// #       _: &Departure,
/// #       _: bool,
/// #   ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> { Ok(()) }
///     async fn reinstall_needed(
///         &self,
///         whose: &Credential,
///         notice: &Notice,
///     ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///         let Some(customer) = &notice.metadata else {
///             return Ok(());
///         };
///         let text = match whose {
///             Credential::Bot => "Please add the app to your Slack workspace again.".to_owned(),
///             Credential::User(id) => format!("Please ask {id} to connect the account again."),
///         };
///         Ok(self.send(customer, &text).await?)
///     }
/// }
/// ```
#[async_trait::async_trait]
pub trait LifecycleHooks: fmt::Debug + Send + Sync + 'static {
    /// Deletes your app's data of this tenant. `is_installed_again` says whether the app was
    /// installed there again. Use it for messages, and for data without a time.
    async fn uninstalled(
        &self,
        departure: &Departure,
        is_installed_again: bool,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

    /// The authorization of the bot or of a user was revoked, and its tokens are deleted. The
    /// tenant stays installed. The default does nothing.
    async fn authorization_revoked(
        &self,
        whose: &Credential,
        notice: &Notice,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let _ = (whose, notice);
        Ok(())
    }

    /// Slack refused every refresh token of the bot or of a user, so the app must be installed
    /// again. [`Notice::reason`] has Slack's error code. The last access token may still be valid
    /// until it expires. The default does nothing.
    async fn reinstall_needed(
        &self,
        whose: &Credential,
        notice: &Notice,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let _ = (whose, notice);
        Ok(())
    }

    /// A workspace left the organisation's installation, which no longer serves it. [`Notice::key`]
    /// is the organisation. The default does nothing.
    async fn workspace_left(
        &self,
        workspace: &TeamId,
        notice: &Notice,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let _ = (workspace, notice);
        Ok(())
    }
}

forward!(LifecycleHooks for [Arc] {
    fn uninstalled(
        departure: &Departure,
        is_installed_again: bool
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
    fn authorization_revoked(
        whose: &Credential,
        notice: &Notice
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
    fn reinstall_needed(
        whose: &Credential,
        notice: &Notice
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
    fn workspace_left(
        workspace: &TeamId,
        notice: &Notice
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
});

/// The result of handling an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Handled {
    /// The event was about an earlier installation, or nothing is stored for it.
    Ignored,
    /// The event is not a lifecycle event.
    NotLifecycle,
    /// The change of workspaces was stored. Your app may handle the event as well.
    Noted,
    /// All data of the tenant was deleted, and your app's hook was called.
    Purged,
    /// Some credentials of the tenant were deleted. Your app may handle the event as well.
    Revoked,
}

/// Why an event could not be handled. Let Slack repeat it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LifecycleError {
    /// Your app's hook failed.
    #[error("a hook of `LifecycleHooks` failed, and is called again")]
    Hook(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The event's fields do not have the documented form.
    #[error("the fields of the event do not have the form that Slack documents")]
    Event(#[from] PayloadError),
    /// The installation changed during every attempt to handle the event.
    #[error("the installation changed during every attempt to handle the event")]
    Moved,
    /// Slack did not confirm whether the installation is still active.
    #[error("Slack did not confirm whether the installation is still active")]
    Slack(#[source] slack::Error),
    /// The store could not read or change the installation.
    #[error("the installation could not be read or changed")]
    Store(#[from] store::Error),
}

impl LifecycleError {
    /// Returns whether handling the same event may succeed later.
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
    /// Creates a handler of lifecycle events for the installations in this store.
    #[must_use]
    pub fn new(installations: impl LifecycleStore, slack: SlackClient) -> Self {
        Self {
            installations: Arc::new(installations),
            slack,
            hooks: None,
            clock: Clock::default(),
        }
    }

    /// Sets your app's hooks. Set them in every process that handles events: a process without
    /// hooks purges and deletes, and stores neither a departure nor a notice to report.
    #[must_use]
    pub fn with_hooks(mut self, hooks: impl LifecycleHooks) -> Self {
        self.hooks = Some(Arc::new(hooks));
        self
    }

    /// Uses this clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Returns whether [`handle`](Self::handle) acts on this request.
    #[must_use]
    pub fn concerns(request: &VerifiedRequest) -> bool {
        request.lifecycle_event().is_some()
    }

    /// Handles a lifecycle event. If it returns `Ok`, all changes are durable, and your app may
    /// respond to Slack with 200.
    ///
    /// Takes at most two minutes, most of them for a slow hook. Slack waits only 3 s for a response:
    /// the tower layer and [`SlackApp::serve`](crate::SlackApp::serve) respond after 2.5 s, and
    /// continue to handle the event.
    ///
    /// # Errors
    ///
    /// [`LifecycleError`]: respond with a 5xx status, so that Slack repeats the event.
    ///
    /// # Cancel safety
    ///
    /// If dropped, each change is either complete or not applied. The repeated event, or
    /// [`resume_pending`](Self::resume_pending), completes the rest.
    pub async fn handle(&self, request: &VerifiedRequest) -> Result<Handled, LifecycleError> {
        in_time(Instant::now() + LONGEST, self.handle_in_tries(request)).await
    }

    async fn handle_in_tries(&self, request: &VerifiedRequest) -> Result<Handled, LifecycleError> {
        let Some(event) = request.lifecycle_event() else {
            return Ok(Handled::NotLifecycle);
        };
        let (Some(tenant), Some(at)) = (request.tenant(), request.event_time()) else {
            tracing::warn!(request = ?request, "an ignored event names no tenant or no time");
            return Ok(Handled::Ignored);
        };
        // Only the tenant that the event names: a fallback would purge another tenant.
        let named = |(via, key)| (via == ResolvedVia::Named).then_some(key);
        let Some(key) = tenant.candidates().into_iter().find_map(named) else {
            return Ok(Handled::Ignored);
        };
        // Slack does not document whether an organisation's event also names a workspace.
        let org = |(via, key)| (via == ResolvedVia::WorkspaceToOrg).then_some(key);
        let org = tenant.candidates().into_iter().find_map(org);
        for _ in 0..ATTEMPTS {
            match self.apply(event, request, &key, org.as_ref(), at).await {
                // The installation changed between the check and the commit, so the event is
                // checked again.
                Err(LifecycleError::Store(store::Error::Conflict)) => {}
                outcome => {
                    if let Ok(handled) = &outcome {
                        let event = event.name();
                        tracing::info!(tenant = %key, event, ?handled, "lifecycle event handled");
                    }
                    return outcome;
                }
            }
        }
        Err(LifecycleError::Moved)
    }

    /// Applies the event. `org` is the organisation of the workspace, if the event names both.
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
            // Nothing to do: for some time, Slack responds to the tokens with `team_added_to_org`.
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

debug_fields!(Lifecycle: installations, slack);

/// How long the handling of one event takes at most: longer than a hook may take, and long enough
/// for a database that fails over.
const LONGEST: Duration = Duration::from_secs(120);

/// How many attempts are made to handle an event, if the installation changes during each.
const ATTEMPTS: usize = 10;

/// How long a hook may take before another worker calls it again. Slack also
/// repeats an event after a minute without a response.
const REPORT_AGAIN: Duration = Duration::from_secs(60);
