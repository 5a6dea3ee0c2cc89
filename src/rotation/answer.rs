//! Classifies Slack's responses by what they mean for the tokens of a chain.

use std::sync::Arc;
use std::time::Duration;

use crate::slack::{Error as SlackError, ErrorClass, ErrorCode};

/// What a failed call means for the refresh token that was sent.
pub(super) enum Answer {
    /// Slack rejects the app itself, whichever token was sent.
    App(ErrorCode),
    /// Slack issued no pair, and the call can be tried again.
    Later { after: Option<Duration> },
    /// Slack refuses this refresh token permanently.
    Refused,
    /// Slack may have issued a pair.
    Unknown,
}

impl Answer {
    pub(super) fn of(error: &SlackError) -> Self {
        match (error, error.class()) {
            (SlackError::RateLimited { retry_after }, _) => Self::Later {
                after: retry_after.map(|after| after.min(LONGEST_WAIT)),
            },
            (_, class) if class.ends_token() => Self::Refused,
            (SlackError::Api { code, .. }, _) if code.is_about_app() => Self::App(code.clone()),
            (
                _,
                ErrorClass::CallerBug
                | ErrorClass::Configuration
                | ErrorClass::Migrating
                | ErrorClass::Policy
                | ErrorClass::Retry,
            ) => Self::Later { after: None },
            _ => Self::Unknown,
        }
    }
}

/// Returns the error code that is stored in the chain after a failed call.
pub(super) fn name(error: &SlackError) -> Arc<str> {
    match error {
        SlackError::Api { code, .. } => code.as_str().into(),
        SlackError::RateLimited { .. } => "ratelimited".into(),
        SlackError::Http { .. } => "http_status".into(),
        SlackError::Malformed { .. } => "malformed_answer".into(),
        SlackError::Transport(_) => "no_answer".into(),
    }
}

/// Limits Slack's `Retry-After`, which is normally a few seconds up to a minute.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::installation::Scopes;
    use crate::slack::TransportError;

    fn api(code: &str) -> SlackError {
        SlackError::Api {
            code: ErrorCode::new(code),
            needed: Scopes::default(),
        }
    }

    fn meaning(error: &SlackError) -> String {
        match Answer::of(error) {
            Answer::Later { after: None } => "later".to_owned(),
            Answer::Later { after: Some(after) } => format!("in {} s", after.as_secs()),
            Answer::App(code) => format!("app: {code}"),
            Answer::Refused => "refused".to_owned(),
            Answer::Unknown => "unknown".to_owned(),
        }
    }

    const OF_THE_APP: [&str; 9] = [
        "accesslimited",
        "bad_client_secret",
        "bad_redirect_uri",
        "invalid_client_id",
        "invalid_grant_type",
        "oauth_authorization_url_mismatch",
        "pkce_not_allowed",
        "token_rotation_not_enabled",
        "unknown_method",
    ];

    #[test]
    fn only_the_end_of_an_authorisation_refuses_a_refresh_token() {
        for code in [
            "account_inactive",
            "authorization_not_found",
            "invalid_grant",
            "invalid_refresh_token",
            "token_expired",
            "token_revoked",
        ] {
            assert_eq!(meaning(&api(code)), "refused", "{code}");
        }
        for code in [
            // Slack also returns this to an IP address that is not on the app's allow-list.
            "invalid_auth",
            "invalid_token",
            // These codes say nothing about a refresh token, and the call may have issued a pair.
            "code_already_used",
            "fatal_error",
            "internal_error",
            "invalid_code",
            "missing_scope",
            "no_permission",
            "no_scopes",
            "some_future_error",
            "team_access_not_granted",
        ] {
            assert_eq!(meaning(&api(code)), "unknown", "{code}");
        }
    }

    #[test]
    fn what_slack_says_of_the_app_is_told_from_what_it_says_of_one_token() {
        for code in OF_THE_APP {
            assert_eq!(meaning(&api(code)), format!("app: {code}"));
            assert!(ErrorCode::new(code).is_about_app(), "{code}");
        }
        for code in [
            "access_denied",
            "client_id_token_mismatch",
            "ekm_access_denied",
            "enterprise_is_restricted",
            "invalid_arguments",
            "invalid_form_data",
            "not_allowed_token_type",
            "not_authed",
            "org_login_required",
            "request_timeout",
            "service_unavailable",
            "team_added_to_org",
            "two_factor_setup_required",
        ] {
            assert_eq!(meaning(&api(code)), "later", "{code}");
            assert!(!ErrorCode::new(code).is_about_app(), "{code}");
        }
    }

    #[test]
    fn a_call_that_slack_did_not_take_is_told_from_one_whose_response_is_lost() {
        let limited = |retry_after: Option<u64>| SlackError::RateLimited {
            retry_after: retry_after.map(Duration::from_secs),
        };
        let not_sent = SlackError::Transport(TransportError::NotSent("refused".into()));
        let lost = SlackError::Transport(TransportError::Lost("reset".into()));
        for (error, expected) in [
            (limited(None), "later"),
            (limited(Some(0)), "in 0 s"),
            (limited(Some(30)), "in 30 s"),
            (limited(Some(300)), "in 300 s"),
            (limited(Some(301)), "in 300 s"),
            (limited(Some(u64::MAX)), "in 300 s"),
            (not_sent, "later"),
            (lost, "unknown"),
            (SlackError::Http { status: 503 }, "unknown"),
            (SlackError::Malformed { what: "a field" }, "unknown"),
        ] {
            assert_eq!(meaning(&error), expected, "{error:?}");
            assert!(!error.class().ends_token(), "{error:?}");
        }
    }
}
