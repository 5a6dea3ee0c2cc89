//! The errors of an install flow.

use thiserror::Error;

use crate::{slack, store};

/// Why a flow did not start, or did not end with an installation.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The person, or Slack, denied the installation.
    #[error("the person or Slack denied the installation: {0}")]
    Denied(slack::ErrorCode),
    /// Slack did not exchange the code, or its response cannot be stored.
    #[error("Slack did not exchange the code for tokens that can be stored")]
    Exchange(#[source] slack::Error),
    /// A hook of your app panicked. The installation may be stored.
    #[error("an install hook of your app panicked; the installation may be stored")]
    Hook,
    /// The task of the flow ended early, because the process is shutting down.
    #[error("the flow was interrupted, because the process is shutting down")]
    Interrupted,
    /// This app did not sign the state, or the state is for another app or redirect URL.
    #[error("this app did not sign the state for this redirect URL, or the query is malformed")]
    InvalidState,
    /// The callback contains neither a code nor an error.
    #[error("the callback has neither a code nor an error")]
    NoCode,
    /// The callback contains no state, because the installation started at Slack. Its code is not
    /// exchanged; send the person through the app's own flow.
    #[error("the callback has no state: the installation started at Slack")]
    NoState,
    /// Slack granted neither a bot nor a user's token that can be stored.
    #[error("Slack granted neither a bot nor a user's token that can be stored")]
    NothingGranted,
    /// The flow did not start, because its options are invalid.
    #[error("the install flow cannot start: {0}")]
    Options(&'static str),
    /// The tokens are for an app other than the configured one.
    #[error("the tokens are for another app than the configured one: check the app id")]
    OtherApp,
    /// The flow started in another browser, or this browser did not send the flow's cookie.
    #[error("the flow started in another browser, or this browser did not send the flow's cookie")]
    OtherBrowser,
    /// The flow belongs to another session of your app than the one of the callback.
    #[error("the flow started in another session of the app, or nobody is signed in any more")]
    OtherSession,
    /// The app was installed in a workspace other than the flow's.
    #[error("the app was installed in another workspace than the flow requested")]
    OtherTeam,
    /// Your app's policy refused the installation.
    #[error("the install policy refused the installation: {reason}")]
    Refused {
        /// The reason, for the person who installs.
        reason: String,
    },
    /// The state is older than its lifetime.
    #[error("the state has expired: start the flow again")]
    StateExpired,
    /// The store could not store the state or the installation, or could not read the state.
    #[error("the install flow's state, or the installation, could not be stored or read")]
    Store(#[source] store::Error),
    /// The state was already used.
    #[error("the state was already used: start the flow again")]
    UsedState,
}

impl Error {
    /// Returns whether the person may succeed by trying again.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Exchange(error) => error.is_transient(),
            Self::Store(error) => error.is_transient(),
            Self::Interrupted | Self::StateExpired | Self::UsedState => true,
            _ => false,
        }
    }

    /// Returns the name of the error, for logs and metrics. It contains no id of a tenant.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Denied(_) => "denied",
            Self::Exchange(_) => "exchange",
            Self::Hook => "hook",
            Self::Interrupted => "interrupted",
            Self::InvalidState => "invalid_state",
            Self::NoCode => "no_code",
            Self::NoState => "no_state",
            Self::NothingGranted => "nothing_granted",
            Self::Options(_) => "options",
            Self::OtherApp => "other_app",
            Self::OtherBrowser => "other_browser",
            Self::OtherSession => "other_session",
            Self::OtherTeam => "other_team",
            Self::Refused { .. } => "refused",
            Self::StateExpired => "state_expired",
            Self::Store(_) => "store",
            Self::UsedState => "used_state",
        }
    }
}
