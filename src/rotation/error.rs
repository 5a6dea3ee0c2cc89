//! The errors of rotation.

use std::sync::Arc;
use std::time::SystemTime;

use thiserror::Error;

use crate::slack::{self, ErrorCode};
use crate::store::{self, ChainKey};

/// The reason why no token is handed out. An expired token is never handed out instead.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's waiting time ended. The refresh continues, in this process or in another one.
    #[error("the token is still being refreshed: try again in a moment")]
    Busy,
    /// Slack rejects the app's client id, client secret or settings. No installation is marked
    /// dead because of it.
    #[error("Slack rejects the app ({code}): check its client id, client secret and settings")]
    Configuration {
        /// Slack's error code.
        code: ErrorCode,
    },
    /// The process is shutting down, or the task of the refresh panicked.
    #[error("the refresh was interrupted by a shutdown or a panic: try again")]
    Interrupted,
    /// The long-lived token was not exchanged for a rotating pair. The token stays in use.
    #[error("the long-lived token was not exchanged for a pair ({code}): it stays in use")]
    NotExchanged {
        /// The error code, from Slack or from this crate.
        code: ErrorCode,
    },
    /// The installation does not exist, or it has no such credential.
    #[error("{chain} is not stored: install the app there, or ask for another token")]
    NotInstalled {
        /// The tenant, and whose token was looked for.
        chain: ChainKey,
    },
    /// The token is long-lived, so it has no refresh token.
    #[error(
        "the token is long-lived and cannot be rotated: exchange it with `TokenRotator::migrate` \
         first"
    )]
    NotRotating,
    /// An operator has put the installation on hold.
    #[error("the installation is on hold: no token is handed out until the hold is lifted")]
    OnHold,
    /// Slack refused every refresh token of this chain.
    #[error("Slack refused every refresh token ({code}): the app must be installed again")]
    ReinstallNeeded {
        /// Slack's error code.
        code: ErrorCode,
    },
    /// The store returned an error.
    #[error("the token could not be read from the store or saved to it")]
    Store(#[source] Arc<store::Error>),
    /// The refresh failed. It is not tried again before a certain time.
    #[error("the token could not be refreshed ({code}): try again later")]
    TryAgain {
        /// When to try again, on the clock of the process that failed.
        at: SystemTime,
        /// The error code, from Slack or from this crate.
        code: ErrorCode,
    },
}

impl Error {
    /// Returns whether the same call may succeed later without any action by a person.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Busy | Self::Interrupted | Self::TryAgain { .. } => true,
            Self::Configuration { .. }
            | Self::NotExchanged { .. }
            | Self::NotInstalled { .. }
            | Self::NotRotating
            | Self::OnHold
            | Self::ReinstallNeeded { .. } => false,
            Self::Store(error) => error.is_transient(),
        }
    }

    /// Returns the name of the error, for logs and metrics. It contains no id of a tenant.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Configuration { .. } => "configuration",
            Self::Interrupted => "interrupted",
            Self::NotExchanged { .. } => "not_exchanged",
            Self::NotInstalled { .. } => "not_installed",
            Self::NotRotating => "not_rotating",
            Self::OnHold => "on_hold",
            Self::ReinstallNeeded { .. } => "reinstall_needed",
            Self::Store(_) => "store",
            Self::TryAgain { .. } => "try_again",
        }
    }

    /// Creates the error of a chain that does not exist.
    pub(super) fn not_installed(chain: &ChainKey) -> Self {
        Self::NotInstalled {
            chain: chain.clone(),
        }
    }

    /// Creates the error of a dead chain from its last error code.
    pub(super) fn reinstall_needed(last_error: Option<&str>) -> Self {
        Self::ReinstallNeeded {
            code: code(last_error),
        }
    }

    /// Creates the error of a chain that can be tried again at this time, from its last error code.
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

/// Reports whether Slack refused a call because of its token. Implement it for your app's error
/// type. The default of an optional method is `false`.
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
///
///     fn is_account_inactive(&self) -> bool {
///         matches!(self, Self::Slack(code) if code == "account_inactive")
///     }
/// }
/// ```
pub trait RefusedToken {
    /// Returns whether Slack's response was `token_expired`.
    fn is_token_expired(&self) -> bool;

    /// Returns whether Slack's response was `token_revoked`. Slack returns it for a token that it
    /// revoked before the token expired.
    fn is_token_revoked(&self) -> bool {
        false
    }

    /// Returns whether Slack's response was `account_inactive`. Slack returns it for the token of a
    /// bot or a user that no longer exists, for example because the app was removed.
    fn is_account_inactive(&self) -> bool {
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

    fn is_account_inactive(&self) -> bool {
        self.class() == slack::ErrorClass::Dead
    }
}

/// The error of [`TokenRotator::call`](super::TokenRotator::call).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CallError<E> {
    /// Your app's operation failed, although it had a current token.
    #[error(transparent)]
    Operation(E),
    /// No current token could be handed out.
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
        let chain = || ChainKey {
            credential: store::Credential::Bot,
            tenant: "T0ALPHA0001".parse().expect("a tenant's id"),
        };
        for error in [
            Error::Configuration { code: code() },
            Error::NotExchanged { code: code() },
            Error::NotInstalled { chain: chain() },
            Error::NotRotating,
            Error::OnHold,
            Error::ReinstallNeeded { code: code() },
            Error::from(unreadable),
        ] {
            assert!(!error.is_transient(), "{error:?}");
        }
    }

    #[test]
    fn slacks_own_error_says_whether_the_token_expired_was_revoked_or_has_no_account() {
        for (code, is_expired, is_revoked, is_inactive) in [
            ("token_expired", true, false, false),
            ("token_revoked", false, true, false),
            ("account_inactive", false, false, true),
            ("invalid_auth", false, false, false),
            ("some_future_error", false, false, false),
        ] {
            let error = slack::Error::Api {
                code: ErrorCode::new(code),
                needed: Scopes::default(),
            };
            let said = (
                error.is_token_expired(),
                error.is_token_revoked(),
                error.is_account_inactive(),
            );
            assert_eq!(said, (is_expired, is_revoked, is_inactive), "{code}");
        }
    }
}
