//! Why a request is not taken.

use http::StatusCode;
use thiserror::Error;

/// Why a request is not taken. Nothing of the request is repeated.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum VerifyError {
    /// The signature is not one of this body, at that time, with any of the signing secrets.
    #[error("the signature does not fit the request")]
    Forged,
    /// Slack's signature, but the body is not what Slack sends.
    #[error("the request is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// A signature or timestamp header that occurs twice or has another form than Slack's.
    #[error("the signature or timestamp header is malformed")]
    MalformedHeader,
    /// No signature or no timestamp header.
    #[error("the request is not signed")]
    NotSigned,
    /// The request names another app than the one that was set with
    /// [`Verifier::with_app_id`](super::Verifier::with_app_id).
    #[error("the request concerns another app")]
    OtherApp,
    /// Signed too long ago, or in the future: replayed, or a clock is wrong.
    #[error("the request's time is too far from now")]
    Stale,
    /// The body is larger than the limit.
    #[error("the request is too large")]
    TooLarge,
    /// Neither JSON nor a form, by its `Content-Type`.
    #[error("the request is of an unexpected content type")]
    UnsupportedMediaType,
}

impl VerifyError {
    /// The status to answer with. The body can stay empty; the message says nothing that a
    /// forger would learn from.
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

    /// Whether the same request may be taken later: never. Slack's retry is a new request, with a
    /// new time and signature.
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
    #[error("{0} is not what Slack sends there")]
    Field(
        /// The field's path, such as `view.app_installed_team_id`.
        &'static str,
    ),
    /// The body is not a strictly encoded form of one meaning.
    #[error("the body is not a form that Slack sends")]
    Form,
    /// The body, or the form's `payload`, is not one JSON object.
    #[error("the body is not a JSON object")]
    Json,
    /// A key occurs twice: readers that take the first and readers that take the last would act
    /// for different tenants.
    #[error("a key of the body occurs twice")]
    Repeated,
}
