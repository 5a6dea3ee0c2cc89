//! The response to a request that your app does not receive.

use http::StatusCode;

use crate::authorize::AuthorizeError;
use crate::error_chain::error_chain;
use crate::request::{Kind, VerifiedRequest};
use crate::rotation;

/// The response to a request that your app does not receive.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Reply {
    /// The HTTP status. Over Socket Mode, acknowledge the envelope unless the status is 500 or
    /// higher. Slack then delivers the request again.
    pub status: StatusCode,
    /// The body, as plain text; often empty. Slack shows it to the person who typed a command.
    pub text: String,
}

/// Why a request is not served. There is one variant for each text that the person can see.
#[derive(Clone, Copy)]
pub(super) enum Refusal {
    Ended,
    Later,
    Misconfigured,
    NotGranted,
    NotInstalled,
    OnHold,
}

impl Refusal {
    fn of(error: &AuthorizeError) -> Self {
        match error {
            AuthorizeError::Store(_) | AuthorizeError::Refresh(rotation::Error::Store(_)) => {
                Self::Later
            }
            AuthorizeError::Refresh(error) if error.is_transient() => Self::Later,
            AuthorizeError::Refresh(rotation::Error::Configuration { .. }) => Self::Misconfigured,
            AuthorizeError::OnHold | AuthorizeError::Refresh(rotation::Error::OnHold) => {
                Self::OnHold
            }
            AuthorizeError::Expired
            | AuthorizeError::Refresh(rotation::Error::ReinstallNeeded { .. }) => Self::Ended,
            AuthorizeError::NotGranted => Self::NotGranted,
            _ => Self::NotInstalled,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Ended => "This app's access has ended. Please install it again.",
            Self::Later => "This app is busy. Please try again in a moment.",
            Self::Misconfigured => {
                "This app does not work at the moment. Please contact the people who provide it."
            }
            Self::NotGranted => {
                "Your organisation has not added this app to this workspace. Please ask an admin."
            }
            Self::NotInstalled => "This app is not installed here. Please install it first.",
            Self::OnHold => "This app is on hold here. Please contact the people who provide it.",
        }
    }
}

impl Reply {
    pub(crate) fn new(status: StatusCode, text: &str) -> Self {
        Self {
            status,
            text: text.to_owned(),
        }
    }

    pub(crate) fn empty() -> Self {
        Self::new(StatusCode::OK, "")
    }

    /// Returns a response after which Slack repeats the event.
    pub(super) fn later() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not done yet")
    }

    pub(super) fn text(text: &str) -> Self {
        Self::new(StatusCode::OK, text)
    }

    /// Returns the response to a request for which the handler needs a token that does not exist.
    #[cfg(feature = "axum")]
    pub(crate) fn without_token(request: &VerifiedRequest) -> Self {
        Self::refusing(request, Refusal::NotInstalled)
    }

    /// Returns the response to a request that has no token, for this reason.
    pub(crate) fn unauthorized(request: &VerifiedRequest, error: &AuthorizeError) -> Self {
        let (tenant, kind) = (request.tenant(), request.kind());
        let refusal = Refusal::of(error);
        let error = error_chain(error);
        match refusal {
            Refusal::Later | Refusal::Misconfigured => {
                tracing::error!(
                    ?tenant,
                    ?kind,
                    error,
                    "a request cannot be served at the moment"
                );
            }
            _ => tracing::info!(?tenant, ?kind, error, "a request is not authorized"),
        }
        Self::refusing(request, refusal)
    }

    pub(super) fn refusing(request: &VerifiedRequest, refusal: Refusal) -> Self {
        match (request.kind(), refusal) {
            // Slack shows the text of the response to the person who typed the command.
            (Kind::SlashCommand, refusal) => Self::text(refusal.text()),
            (_, Refusal::Later | Refusal::Misconfigured) => Self::later(),
            (Kind::AppRateLimited | Kind::Event { .. } | Kind::FunctionExecuted, _) => {
                // A repetition would change nothing.
                Self::empty()
            }
            // With this status, Slack shows the person an error. An empty 200 would close a modal.
            _ => Self::new(StatusCode::FORBIDDEN, "refused"),
        }
    }
}
