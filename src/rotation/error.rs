//! Why there is no current token.

use std::sync::Arc;
use std::time::SystemTime;

use thiserror::Error;

use crate::slack::{self, ErrorCode};
use crate::store;

/// Why no token is handed out. Never an older one instead.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The refresh goes on, here or in another process, and the caller's patience ended.
    #[error("the token is being refreshed; ask again in a moment")]
    Busy,
    /// Slack refuses our own client id or secret, or the app's settings. Nothing was concluded
    /// about any installation.
    #[error("Slack refuses this app's own configuration: {code}")]
    Configuration {
        /// Slack's name for the reason.
        code: ErrorCode,
    },
    /// The process is shutting down, or the refresh ended without a word (a panic).
    #[error("the refresh was interrupted")]
    Interrupted,
    /// The long-lived token was not exchanged for a rotating pair. It serves as before.
    #[error("the token was not exchanged: {code}")]
    NotExchanged {
        /// Slack's, or our own, name for the reason.
        code: ErrorCode,
    },
    /// There is no such installation, or it has no such credential.
    #[error("the app is not installed there, or has no such token")]
    NotInstalled,
    /// An operator has put the installation on hold.
    #[error("the installation is on hold")]
    OnHold,
    /// Slack refused every refresh token that it ever gave for this chain.
    #[error("the app must be installed again: {code}")]
    ReinstallNeeded {
        /// Slack's name for the reason.
        code: ErrorCode,
    },
    /// The store did not do it.
    #[error("the token could not be read or kept")]
    Store(#[source] Arc<store::Error>),
    /// The refresh did not succeed, and the next try is not before then.
    #[error("the token could not be refreshed yet: {code}")]
    TryAgain {
        /// When, on the clock of whoever failed.
        at: SystemTime,
        /// Slack's, or our own, name for the reason.
        code: ErrorCode,
    },
}

impl Error {
    /// Whether the same call may succeed later, with nothing changed by anybody.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Busy | Self::Interrupted | Self::TryAgain { .. } => true,
            Self::Configuration { .. }
            | Self::NotExchanged { .. }
            | Self::NotInstalled
            | Self::OnHold
            | Self::ReinstallNeeded { .. } => false,
            Self::Store(error) => error.is_transient(),
        }
    }

    /// Of a dead chain whose last error was this.
    pub(super) fn reinstall_needed(last_error: Option<&str>) -> Self {
        Self::ReinstallNeeded {
            code: code(last_error),
        }
    }

    /// Of a chain whose last error was this.
    pub(super) fn try_again(at: SystemTime, last_error: Option<&str>) -> Self {
        Self::TryAgain {
            at,
            code: code(last_error),
        }
    }
}

fn code(last_error: Option<&str>) -> ErrorCode {
    ErrorCode::new(last_error.unwrap_or("unknown"))
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// Told by the host's own error type: whether Slack refused a call because of its token.
///
/// ```
/// use slack_installs::rotation::RefusedToken;
///
/// enum PostError {
///     Slack(String),
///     Network,
/// }
///
/// impl RefusedToken for PostError {
///     fn is_token_expired(&self) -> bool {
///         matches!(self, Self::Slack(code) if code == "token_expired")
///     }
///
///     fn is_token_revoked(&self) -> bool {
///         matches!(self, Self::Slack(code) if code == "token_revoked")
///     }
/// }
/// ```
pub trait RefusedToken {
    /// Slack answered `token_expired`.
    fn is_token_expired(&self) -> bool;

    /// Slack answered `token_revoked`, as it does for a token that it ended before its time. No,
    /// unless the host says so.
    fn is_token_revoked(&self) -> bool {
        false
    }
}

impl RefusedToken for slack::Error {
    fn is_token_expired(&self) -> bool {
        self.class() == slack::ErrorClass::TokenExpired
    }

    fn is_token_revoked(&self) -> bool {
        self.class() == slack::ErrorClass::Revoked
    }
}

/// Why [`TokenRotator::call`](super::TokenRotator::call) did not do it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The host's operation failed, with a current token.
    #[error(transparent)]
    Operation(E),
    /// There is no current token.
    #[error(transparent)]
    Token(Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::installation::Scopes;

    #[test]
    fn an_error_is_transient_if_nobody_has_to_do_anything_about_it() {
        let code = || ErrorCode::new("some_code");
        let away = store::Error::Unavailable("away".into());
        let at = SystemTime::UNIX_EPOCH;
        for error in [
            Error::Busy,
            Error::Interrupted,
            Error::TryAgain { at, code: code() },
            Error::from(away),
        ] {
            assert!(error.is_transient(), "{error:?}");
        }
        let unreadable = store::Error::Unreadable("changed".into());
        for error in [
            Error::Configuration { code: code() },
            Error::NotExchanged { code: code() },
            Error::NotInstalled,
            Error::OnHold,
            Error::ReinstallNeeded { code: code() },
            Error::from(unreadable),
        ] {
            assert!(!error.is_transient(), "{error:?}");
        }
    }

    #[test]
    fn slacks_own_error_says_whether_the_token_expired_or_was_revoked() {
        for (code, is_expired, is_revoked) in [
            ("token_expired", true, false),
            ("token_revoked", false, true),
            ("invalid_auth", false, false),
            ("account_inactive", false, false),
            ("some_future_error", false, false),
        ] {
            let error = slack::Error::Api {
                code: ErrorCode::new(code),
                needed: Scopes::default(),
            };
            let said = (error.is_token_expired(), error.is_token_revoked());
            assert_eq!(said, (is_expired, is_revoked), "{code}");
        }
    }
}
