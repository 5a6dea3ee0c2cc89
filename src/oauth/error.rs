//! Why a flow did not end with an installation.

use thiserror::Error;

use crate::{slack, store};

/// Why a flow did not begin, or did not end with an installation.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The person, or Slack, said no.
    #[error("the installation was not allowed: {0}")]
    Denied(slack::ErrorCode),
    /// Slack did not exchange the code, or answered something that cannot be kept.
    #[error("the code could not be exchanged for tokens")]
    Exchange(#[source] slack::Error),
    /// A hook of the host's panicked. The installation may be stored.
    #[error("the host's install hook panicked")]
    Hook,
    /// The task that finished the flow ended early: the process is shutting down.
    #[error("the flow was interrupted")]
    Interrupted,
    /// The state is not one of ours, or is for another app or redirect URL.
    #[error("the state is not one that this app made for this redirect URL")]
    InvalidState,
    /// The callback has neither a code nor an error.
    #[error("the callback has no code")]
    NoCode,
    /// The callback has no state: the installation was started at Slack. Its code is not
    /// exchanged; the person goes through our own flow.
    #[error("the callback has no state")]
    NoState,
    /// Slack granted neither a bot nor a user's token to keep.
    #[error("nothing was granted that could be kept as an installation")]
    NothingGranted,
    /// The flow did not begin: its options cannot work.
    #[error("this install flow cannot begin: {0}")]
    Options(&'static str),
    /// The tokens are for another app than the configured one.
    #[error("the tokens are for another app")]
    OtherApp,
    /// The flow was begun in another browser, or its cookie is gone.
    #[error("the flow was begun in another browser, or this one does not keep its cookie")]
    OtherBrowser,
    /// The app was installed in another workspace than the flow was meant for.
    #[error("the app was installed in another workspace than this flow was for")]
    OtherTeam,
    /// The host's policy refused it.
    #[error("the installation was refused by policy: {reason}")]
    Refused {
        /// Why, in words for the person who installs.
        reason: String,
    },
    /// The state's ten minutes are over.
    #[error("the state has expired")]
    StateExpired,
    /// The store did not keep the state or the installation, or did not return the state.
    #[error("the install flow's state, or the installation, could not be stored or read")]
    Store(#[source] store::Error),
    /// The state was consumed before.
    #[error("the state was used before")]
    UsedState,
}

impl Error {
    /// Whether the person may succeed by simply trying again.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Exchange(error) => error.is_transient(),
            Self::Store(error) => error.is_transient(),
            Self::Interrupted | Self::StateExpired | Self::UsedState => true,
            _ => false,
        }
    }

    /// The tenant-less name of the reason, for logs and metrics.
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
            Self::OtherTeam => "other_team",
            Self::Refused { .. } => "refused",
            Self::StateExpired => "state_expired",
            Self::Store(_) => "store",
            Self::UsedState => "used_state",
        }
    }
}
