//! Why a request is refused.

use http::StatusCode;
use thiserror::Error;

/// Why a request is refused. The error repeats nothing of the request.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum VerifyError {
    /// No signing secret gives this signature for this body and time.
    #[error("the signature does not match the request: check the signing secret")]
    Forged,
    /// Slack signed the body, but the body does not have a form that Slack sends.
    #[error("the request is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// A signature or timestamp header occurs twice, or does not have Slack's format.
    #[error("the signature or timestamp header occurs twice or is malformed")]
    MalformedHeader,
    /// The signature header or the timestamp header is missing.
    #[error("the request has no signature or no timestamp header")]
    NotSigned,
    /// The request is for an app other than the one set with
    /// [`Verifier::with_app_id`](super::Verifier::with_app_id).
    #[error("the request is for another app: check the configured app id")]
    OtherApp,
    /// The request was signed too long ago, or in the future. It is replayed, or a clock is wrong.
    #[error("the request's timestamp is not current: the request is replayed, or a clock is wrong")]
    Stale,
    /// The body is larger than the limit.
    #[error("the body of the request is larger than the limit")]
    TooLarge,
    /// The `Content-Type` is neither JSON nor a form.
    #[error("the request's content type is neither JSON nor a form")]
    UnsupportedMediaType,
}

impl VerifyError {
    /// Returns the status for the response. The body of the response can stay empty. The error's
    /// text contains nothing that helps a forger.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Forged | Self::NotSigned | Self::Stale => StatusCode::UNAUTHORIZED,
            Self::Malformed(_) | Self::MalformedHeader => StatusCode::BAD_REQUEST,
            Self::OtherApp => StatusCode::FORBIDDEN,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }

    /// Returns a short name, for logs.
    #[cfg(feature = "tower")]
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Forged => "signature_mismatch",
            Self::Malformed(_) => "malformed_body",
            Self::MalformedHeader => "malformed_header",
            Self::NotSigned => "not_signed",
            Self::OtherApp => "other_app",
            Self::Stale => "stale",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "media_type",
        }
    }

    /// Returns whether the same request may be accepted later: always `false`. Slack's retry is a
    /// new request, with a new time and signature.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        false
    }
}

/// What is wrong with a body that Slack signed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Malformed {
    /// A field that this crate reads has a type or a value that Slack does not document.
    #[error("the field `{0}` has a type or value that Slack does not document")]
    Field(
        /// The field's path, such as `view.app_installed_team_id`.
        &'static str,
    ),
    /// The body is not a strictly encoded form with exactly one meaning.
    #[error("the body is not a form that Slack would send")]
    Form,
    /// The body, or the form's `payload` field, is not a single JSON object.
    #[error("the body, or the form's `payload` field, is not a JSON object")]
    Json,
    /// A key occurs twice. A reader that takes the first value and a reader that takes the last
    /// value would act for different tenants.
    #[error("a key occurs twice in the body")]
    Repeated,
}
