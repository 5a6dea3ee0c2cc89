//! A flow that failed, with what is known of it.

use std::error::Error as StdError;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::Callback;
use super::config::{InstallConfig, InstallOptions, Requested};
use super::error::Error;
use super::pending::Pending;
use crate::installation::{Home, Installation};
use crate::tenant::{AppId, EnterpriseId, InstallationKey, TeamId, UserId};

/// A flow that failed: the error, and everything that is known of the flow.
///
/// It dereferences to [`Flow`], so `failed.metadata` is the flow's metadata. For a test of your
/// hooks or pages, make one with [`new`](Self::new), and set the fields of its `flow`.
#[derive(Debug)]
#[non_exhaustive]
pub struct FailedFlow {
    /// Why the flow failed.
    pub error: Error,
    /// What is known of the flow.
    pub flow: Flow,
}

impl FailedFlow {
    /// Makes a failed flow of which nothing but the error is known.
    #[must_use]
    pub fn new(error: Error) -> Self {
        Self {
            error,
            flow: Flow::default(),
        }
    }
}

impl Deref for FailedFlow {
    type Target = Flow;

    fn deref(&self) -> &Flow {
        &self.flow
    }
}

impl fmt::Display for FailedFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl StdError for FailedFlow {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

impl From<Error> for FailedFlow {
    fn from(error: Error) -> Self {
        Self::new(error)
    }
}

impl From<Box<FailedFlow>> for Error {
    fn from(failed: Box<FailedFlow>) -> Self {
        failed.error
    }
}

/// What is known of an install flow. A field is `None` if the flow failed before that was known.
///
/// | the flow failed | known |
/// |---|---|
/// | before it started | what its options say |
/// | because the state is not this app's | only the session of the callback |
/// | because the state expired, or belongs to another browser or session | also `started_at` |
/// | after its cookie was opened: denied, no code, used before, the exchange failed | also what its options say |
/// | after the exchange | also where, which app, and by whom |
///
/// Nothing of an unsigned state is used. `Debug` does not show the metadata and the session.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Flow {
    /// The app that Slack issued tokens for.
    pub app_id: Option<AppId>,
    /// The organisation in which the flow was to install the app, from
    /// [`InstallOptions::enterprise`].
    pub enterprise: Option<EnterpriseId>,
    /// Where the app was installed at Slack. An id is always present, a name if Slack sent it.
    pub home: Option<Home>,
    /// The person who installed the app at Slack.
    pub installed_by: Option<UserId>,
    /// Whether the tokens are kept in memory because the database was away. The library then stores
    /// them, or gives up after 10 minutes. Your hooks hear of either.
    pub is_kept: bool,
    /// The metadata of the flow, from [`InstallOptions::metadata`]. It can be secret, so this crate
    /// never logs it.
    pub metadata: Option<String>,
    /// The scopes that the flow requested.
    pub requested: Option<Requested>,
    /// The session of your app that the callback belongs to, or in which the flow could not start.
    /// It is the session of the request that failed. For [`Error::OtherSession`], the flow started
    /// in another one.
    pub session: Option<String>,
    /// The time at which the flow started, to the second.
    pub started_at: Option<SystemTime>,
    /// The workspace in which the flow was to install the app, from [`InstallOptions::team`].
    pub team: Option<TeamId>,
}

impl Flow {
    /// Returns the key of the tenant in which the app was installed at Slack, if known.
    #[must_use]
    pub fn key(&self) -> Option<InstallationKey> {
        self.home.as_ref().map(Home::key)
    }

    /// Returns what the options of a flow say, before it has started.
    pub(super) fn of_options(config: &InstallConfig, options: &InstallOptions) -> Self {
        let configured = config.requested();
        let scopes = options.scopes.clone().unwrap_or(configured.scopes);
        let user_scopes = options
            .user_scopes
            .clone()
            .unwrap_or(configured.user_scopes);
        Self {
            enterprise: options.enterprise.clone(),
            metadata: options.metadata.clone(),
            requested: Some(Requested {
                scopes,
                user_scopes,
            }),
            session: options.session.clone(),
            team: options.team.clone(),
            ..Self::default()
        }
    }

    /// Returns what a callback says before its state is checked.
    pub(super) fn of_callback(callback: &Callback<'_>) -> Self {
        Self {
            session: callback.session.map(str::to_owned),
            ..Self::default()
        }
    }

    /// Adds what the cookie of the flow says.
    pub(super) fn add_pending(&mut self, pending: &Pending) {
        self.enterprise.clone_from(&pending.enterprise);
        self.metadata.clone_from(&pending.metadata);
        self.requested = Some(pending.requested());
        self.team.clone_from(&pending.team);
    }

    /// Adds what the exchange says.
    pub(super) fn add_installation(&mut self, installation: &Installation) {
        self.app_id = Some(installation.app_id.clone());
        self.home = Some(installation.home.clone());
        self.installed_by.clone_from(&installation.installed_by);
    }

    /// Returns the workspace or organisation of the options, for logs.
    pub(super) fn expected(&self) -> Option<&str> {
        let team = self.team.as_ref().map(TeamId::as_str);
        team.or_else(|| self.enterprise.as_ref().map(EnterpriseId::as_str))
    }
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow")
            .field("app_id", &self.app_id)
            .field("enterprise", &self.enterprise)
            .field("home", &self.home)
            .field("installed_by", &self.installed_by)
            .field("is_kept", &self.is_kept)
            .field("metadata", &self.metadata.as_ref().map(|_| "[redacted]"))
            .field("requested", &self.requested)
            .field("session", &self.session.as_ref().map(|_| "[redacted]"))
            .field("started_at", &self.started_at)
            .field("team", &self.team)
            .finish()
    }
}

/// What the steps of one flow have learned so far. Each step adds to it, so an error of any later
/// step has all of it, and so has a step that panics.
#[derive(Clone, Default)]
pub(super) struct Known(Arc<Mutex<Flow>>);

impl Known {
    pub(super) fn new(flow: Flow) -> Self {
        Self(Arc::new(Mutex::new(flow)))
    }

    pub(super) fn add(&self, add: impl FnOnce(&mut Flow)) {
        add(&mut self.lock());
    }

    pub(super) fn flow(&self) -> Flow {
        self.lock().clone()
    }

    pub(super) fn failed(&self, error: Error) -> Box<FailedFlow> {
        let flow = self.flow();
        Box::new(FailedFlow { error, flow })
    }

    fn lock(&self) -> MutexGuard<'_, Flow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
