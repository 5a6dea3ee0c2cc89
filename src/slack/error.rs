//! What an answer of Slack's means for whoever called.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use super::TransportError;
use crate::installation::Scopes;

/// Why a call to Slack did not do it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Slack answered `ok: false`.
    #[error("Slack refused: {code}")]
    Api {
        /// Slack's name for the reason.
        code: ErrorCode,
        /// With `missing_scope`: the scopes that the call would have needed.
        needed: Scopes,
    },
    /// Slack answered with an HTTP status that tells of trouble on its side, and no JSON.
    #[error("Slack answered with HTTP status {status}")]
    Http {
        /// The status.
        status: u16,
    },
    /// Slack answered with something that its documentation does not describe.
    #[error("Slack's answer is not understood: {what}")]
    Malformed {
        /// Which part.
        what: &'static str,
    },
    /// Too many calls of this method for this workspace.
    #[error("Slack asks to wait before the next call")]
    RateLimited {
        /// For how long, if Slack said.
        retry_after: Option<Duration>,
    },
    /// There is no answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Api { code, .. } => ErrorClass::of(code.as_str()),
            Self::Http { .. } | Self::Malformed { .. } => ErrorClass::Ambiguous,
            Self::RateLimited { .. } => ErrorClass::Retry,
            Self::Transport(TransportError::NotSent(_)) => ErrorClass::Retry,
            Self::Transport(_) => ErrorClass::Ambiguous,
        }
    }

    /// The error of a response that has an error code.
    pub(super) fn refused(code: &str, needed: &str, retry_after: Option<Duration>) -> Self {
        if code == "ratelimited" {
            return Self::RateLimited { retry_after };
        }
        Self::Api {
            code: ErrorCode::new(code),
            needed: Scopes::from(needed),
        }
    }

    /// Whether the same call may succeed later, with nothing changed by the caller.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        use ErrorClass::{Ambiguous, Migrating, Retry};
        matches!(self.class(), Ambiguous | Migrating | Retry)
    }
}

/// Slack's name for an error: lower-case letters, digits and `_`, 64 at most.
#[derive(Clone, Eq, PartialEq)]
pub struct ErrorCode(Box<str>);

impl ErrorCode {
    /// Takes Slack's word, or `unprintable_error` for anything that is no such name: it goes
    /// into logs and pages.
    #[must_use]
    pub fn new(code: &str) -> Self {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if (1..=64).contains(&code.len()) && code.bytes().all(allowed) {
            Self(code.into())
        } else {
            Self("unprintable_error".into())
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it says, in a callback, that the person did not allow the installation.
    pub(crate) fn is_access_denied(&self) -> bool {
        &*self.0 == "access_denied"
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an error means for the credential and for the caller.
///
/// After Slack's method pages and `docs.slack.dev/authentication`; a code that nobody has
/// described yet is [`Unknown`](Self::Unknown), which never costs anybody their installation.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ErrorClass {
    /// The call may have happened: a lost answer, a broken one, or Slack's `internal_error` and
    /// `fatal_error`, of which it says that some aspect may have succeeded.
    Ambiguous,
    /// The call itself is wrong; a bug.
    CallerBug,
    /// Our own client id, secret or redirect URL is wrong. Says nothing about any tenant, and
    /// looks like all of them dying at once.
    Configuration,
    /// The authorisation is gone.
    Dead,
    /// `invalid_auth`: the token is not accepted, or this machine's address is not on the app's
    /// allow-list. So nothing is deleted on it alone.
    InvalidAuth,
    /// `invalid_token`: the token is none that Slack accepts for this call.
    InvalidToken,
    /// The workspace is moving into or out of an organisation; it will be back.
    Migrating,
    /// A policy of the workspace or the organisation forbids it.
    Policy,
    /// Try again later, with the same credential.
    Retry,
    /// `token_revoked`: Slack ended the token; a newer one may have replaced it.
    Revoked,
    /// The token lacks a scope; a reinstall can add it.
    Scope,
    /// The access token's time is up.
    TokenExpired,
    /// Nobody knows; nothing is to be concluded from it.
    Unknown,
    /// The person must go through the install flow again.
    UserFlow,
    /// The org-wide installation is fine, but was not added to this workspace.
    WorkspaceNotGranted,
}

impl ErrorClass {
    fn of(code: &str) -> Self {
        match code {
            "fatal_error" | "internal_error" => Self::Ambiguous,
            "invalid_arg_name" | "invalid_arguments" | "invalid_array_arg" | "invalid_charset"
            | "invalid_form_data" | "invalid_json" | "invalid_post_type" | "json_not_object"
            | "missing_post_type" | "not_authed" | "unknown_method" => Self::CallerBug,
            "accesslimited"
            | "bad_client_secret"
            | "bad_redirect_uri"
            | "client_id_token_mismatch"
            | "invalid_client_id"
            | "invalid_grant_type"
            | "not_allowed_token_type"
            | "oauth_authorization_url_mismatch"
            | "pkce_not_allowed"
            | "token_rotation_not_enabled" => Self::Configuration,
            "account_inactive"
            | "authorization_not_found"
            | "invalid_grant"
            | "invalid_refresh_token" => Self::Dead,
            "org_login_required" | "team_added_to_org" => Self::Migrating,
            "access_denied"
            | "cannot_install_an_org_installed_app"
            | "ekm_access_denied"
            | "enterprise_is_restricted"
            | "preview_feature_not_available"
            | "two_factor_setup_required"
            | "user_email_unverified" => Self::Policy,
            "ratelimited" | "request_timeout" | "service_unavailable" => Self::Retry,
            "invalid_auth" => Self::InvalidAuth,
            "invalid_token" => Self::InvalidToken,
            "token_revoked" => Self::Revoked,
            "missing_scope" | "no_permission" => Self::Scope,
            "token_expired" => Self::TokenExpired,
            "code_already_used" | "invalid_code" | "invalid_code_verifier" | "no_scopes" => {
                Self::UserFlow
            }
            "team_access_not_granted" => Self::WorkspaceNotGranted,
            _ => Self::Unknown,
        }
    }

    /// Whether the token itself is over for certain: dead, expired or revoked.
    pub(crate) fn ends_token(self) -> bool {
        matches!(self, Self::Dead | Self::Revoked | Self::TokenExpired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_is_no_name_never_reaches_a_log() {
        for code in ["", "xoxb-canary", "a\nb", "<b>", &"a".repeat(65)] {
            assert_eq!(ErrorCode::new(code).as_str(), "unprintable_error");
        }
        assert_eq!(ErrorCode::new("invalid_code").as_str(), "invalid_code");
    }

    #[test]
    fn an_unknown_code_is_never_taken_for_a_dead_installation() {
        assert_eq!(
            ErrorClass::of("some_future_error_code"),
            ErrorClass::Unknown
        );
    }
}
