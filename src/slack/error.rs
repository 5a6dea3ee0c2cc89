//! Classifies Slack's errors by what the caller must do.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use super::TransportError;
use crate::installation::Scopes;

/// Why a call to Slack failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Slack responded with `ok: false`.
    #[error("Slack refused the call: {code}")]
    Api {
        /// Slack's error code.
        code: ErrorCode,
        /// With `missing_scope`: the scopes that the call requires.
        needed: Scopes,
    },
    /// Slack responded with an HTTP error status, and without an error code.
    #[error("Slack responded with HTTP status {status} and no error code")]
    Http {
        /// The HTTP status.
        status: u16,
    },
    /// Slack's response does not have the documented form.
    #[error("Slack's response is invalid: {what}")]
    Malformed {
        /// What is wrong with the response.
        what: &'static str,
    },
    /// The app called this method too often for this workspace.
    #[error("Slack rate-limited the call; wait before the next one")]
    RateLimited {
        /// How long to wait, if Slack's response says so.
        retry_after: Option<Duration>,
    },
    /// There is no response.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

impl Error {
    /// Returns the class of this error, which says what the caller must do.
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

    /// Returns the error for a response that has an error code.
    pub(super) fn refused(code: &str, needed: &str, retry_after: Option<Duration>) -> Self {
        if code == "ratelimited" {
            return Self::RateLimited { retry_after };
        }
        Self::Api {
            code: ErrorCode::new(code),
            needed: Scopes::from(needed),
        }
    }

    /// Returns whether the same call, unchanged, may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        use ErrorClass::{Ambiguous, Migrating, Retry};
        matches!(self.class(), Ambiguous | Migrating | Retry)
    }
}

/// Slack's error code: 1 to 64 lower-case letters, digits and `_`.
#[derive(Clone, Eq, PartialEq)]
pub struct ErrorCode(Box<str>);

impl ErrorCode {
    /// Creates the code. If the text has another form, uses `unprintable_error`, because the code
    /// is shown in logs and pages.
    #[must_use]
    pub fn new(code: &str) -> Self {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if (1..=64).contains(&code.len()) && code.bytes().all(allowed) {
            Self(code.into())
        } else {
            Self("unprintable_error".into())
        }
    }

    /// Returns the code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether a callback with this code means that the person refused the installation.
    pub(crate) fn is_access_denied(&self) -> bool {
        &*self.0 == "access_denied"
    }

    /// Returns whether Slack returns this code for the app itself, whichever token was sent.
    ///
    /// A code about one token, for example that it belongs to another app, must not stop the
    /// refreshes of other tokens.
    pub(crate) fn is_about_app(&self) -> bool {
        matches!(
            &*self.0,
            "accesslimited"
                | "bad_client_secret"
                | "bad_redirect_uri"
                | "invalid_client_id"
                | "invalid_grant_type"
                | "oauth_authorization_url_mismatch"
                | "pkce_not_allowed"
                | "token_rotation_not_enabled"
                | "unknown_method"
        )
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
/// The classes follow Slack's method pages and `docs.slack.dev/authentication`. A code that they
/// do not describe is [`Unknown`](Self::Unknown), which never ends an installation.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ErrorClass {
    /// Slack may have applied the call: the response is lost or invalid, or its code is
    /// `internal_error` or `fatal_error`. Slack says of both that a part may have succeeded.
    Ambiguous,
    /// The call itself is wrong, because of a bug in the caller.
    CallerBug,
    /// The app's own configuration is wrong, such as its client id, client secret or redirect URL.
    /// Every tenant gets the error, but it says nothing about any tenant.
    Configuration,
    /// The authorisation no longer exists.
    Dead,
    /// `invalid_auth`: Slack does not accept the token, or this machine's address is not on the
    /// app's allow-list. So this error alone deletes nothing.
    InvalidAuth,
    /// `invalid_token`: Slack does not accept this token for this call.
    InvalidToken,
    /// The workspace is moving into or out of an organisation. Calls work again after the move.
    Migrating,
    /// A policy of the workspace or the organisation forbids the call.
    Policy,
    /// Repeat the call later with the same credential.
    Retry,
    /// `token_revoked`: Slack revoked the token. A newer token may have replaced it.
    Revoked,
    /// The token lacks a scope. A reinstall can add the scope.
    Scope,
    /// The access token has expired.
    TokenExpired,
    /// The code is not documented. Conclude nothing about the token or the tenant.
    Unknown,
    /// The person must go through the install flow again.
    UserFlow,
    /// The org-wide installation is valid, but was not added to this workspace.
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

    /// Returns whether the token is certainly no longer valid: dead, expired or revoked.
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
