//! Each error code that Slack documents for the methods that this crate calls, with its class and
//! with what a refresh does about it.

use slack_installs::Scopes;
use slack_installs::slack::{Error, ErrorClass, ErrorCode, TransportError};

use ErrorClass::{
    Ambiguous, CallerBug, Configuration, Dead, InvalidAuth, InvalidToken, Migrating, Policy, Retry,
    Revoked, Scope, TokenExpired, Unknown, UserFlow, WorkspaceNotGranted,
};

/// What a refresh does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refresh {
    /// Tries again at once, because a pair may have been issued. If that fails too, tries again
    /// later.
    AtOnce,
    /// Pauses every chain, because the app itself is configured wrongly. No chain is marked dead.
    Breaker,
    /// Marks the chain dead.
    Dead,
    /// Tries again later.
    Later,
}

use Refresh::{AtOnce, Breaker, Later};

pub(crate) const CODES: &[(&str, ErrorClass, Refresh)] = &[
    ("access_denied", Policy, Later),
    ("accesslimited", Configuration, Breaker),
    ("account_inactive", Dead, Refresh::Dead),
    ("authorization_not_found", Dead, Refresh::Dead),
    ("bad_client_secret", Configuration, Breaker),
    ("bad_redirect_uri", Configuration, Breaker),
    ("cannot_install_an_org_installed_app", Policy, Later),
    ("client_id_token_mismatch", Configuration, Later),
    ("code_already_used", UserFlow, AtOnce),
    ("ekm_access_denied", Policy, Later),
    ("enterprise_is_restricted", Policy, Later),
    ("fatal_error", Ambiguous, AtOnce),
    ("internal_error", Ambiguous, AtOnce),
    ("invalid_arg_name", CallerBug, Later),
    ("invalid_arguments", CallerBug, Later),
    ("invalid_array_arg", CallerBug, Later),
    ("invalid_auth", InvalidAuth, AtOnce),
    ("invalid_charset", CallerBug, Later),
    ("invalid_client_id", Configuration, Breaker),
    ("invalid_code", UserFlow, AtOnce),
    ("invalid_code_verifier", UserFlow, AtOnce),
    ("invalid_form_data", CallerBug, Later),
    ("invalid_grant", Dead, Refresh::Dead),
    ("invalid_grant_type", Configuration, Breaker),
    ("invalid_json", CallerBug, Later),
    ("invalid_post_type", CallerBug, Later),
    ("invalid_refresh_token", Dead, Refresh::Dead),
    ("invalid_token", InvalidToken, AtOnce),
    ("json_not_object", CallerBug, Later),
    ("missing_post_type", CallerBug, Later),
    ("missing_scope", Scope, AtOnce),
    ("no_permission", Scope, AtOnce),
    ("no_scopes", UserFlow, AtOnce),
    ("not_allowed_token_type", Configuration, Later),
    ("not_authed", CallerBug, Later),
    ("oauth_authorization_url_mismatch", Configuration, Breaker),
    ("org_login_required", Migrating, Later),
    ("pkce_not_allowed", Configuration, Breaker),
    ("preview_feature_not_available", Policy, Later),
    ("ratelimited", Retry, Later),
    ("request_timeout", Retry, Later),
    ("service_unavailable", Retry, Later),
    ("some_future_error_code", Unknown, AtOnce),
    ("team_access_not_granted", WorkspaceNotGranted, AtOnce),
    ("team_added_to_org", Migrating, Later),
    ("token_expired", TokenExpired, Refresh::Dead),
    ("token_revoked", Revoked, Refresh::Dead),
    ("token_rotation_not_enabled", Configuration, Breaker),
    ("two_factor_setup_required", Policy, Later),
    ("unknown_method", CallerBug, Breaker),
    ("user_email_unverified", Policy, Later),
];

fn refused(code: &str) -> Error {
    Error::Api {
        code: ErrorCode::new(code),
        needed: Scopes::default(),
    }
}

#[test]
fn every_code_has_its_class() {
    for (code, class, _) in CODES {
        assert_eq!(refused(code).class(), *class, "{code}");
    }
}

#[test]
fn only_what_may_go_away_by_itself_is_transient() {
    for (code, class, _) in CODES {
        let transient = matches!(class, Ambiguous | Migrating | Retry);
        assert_eq!(refused(code).is_transient(), transient, "{code}");
    }
}

#[test]
fn what_is_no_code_of_slacks_has_its_class_too() {
    let http = Error::Http { status: 503 };
    let malformed = Error::Malformed { what: "it" };
    let lost = Error::Transport(TransportError::Lost("cut".into()));
    for error in [http, malformed, lost] {
        assert_eq!(error.class(), Ambiguous, "{error}");
        assert!(error.is_transient(), "{error}");
    }
    let limited = Error::RateLimited { retry_after: None };
    let not_sent = Error::Transport(TransportError::NotSent("refused".into()));
    for error in [limited, not_sent] {
        assert_eq!(error.class(), Retry, "{error}");
        assert!(error.is_transient(), "{error}");
    }
}

#[test]
fn a_code_is_small_letters_digits_and_underscores() {
    let longest = "a".repeat(64);
    for code in ["a", "not_authed", "oauth2_9", &longest] {
        assert_eq!(ErrorCode::new(code).as_str(), code);
        assert_eq!(
            format!("{0} {0:?}", ErrorCode::new(code)),
            format!("{code} {code}")
        );
    }
    let too_long = "a".repeat(65);
    for code in ["", "Aa", "a-b", "a.b", "a b", "a\u{e9}", &too_long] {
        assert_eq!(ErrorCode::new(code).as_str(), "unprintable_error", "{code}");
    }
}
