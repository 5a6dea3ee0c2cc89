//! A client for Slack's Web API: the methods that this crate calls, and their errors.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;
use url::Url;

mod answers;
mod client;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod member;
mod transport;

pub(crate) use crate::https::is_loopback;
pub(crate) use answers::Unusable;
pub use answers::{AuthTest, Issued, Renewed, UserInfo};
pub use client::{ClientCredentials, SlackClient};
pub use error::{Error, ErrorClass, ErrorCode};
pub use transport::HttpTransport;

/// Selects the Slack to call: the commercial one, GovSlack, or a fake. All URLs are derived from
/// its base URL.
///
/// ```
/// use slack_installs::slack::Environment;
///
/// assert_eq!(Environment::commercial().base().as_str(), "https://slack.com/");
/// assert_eq!(Environment::gov().base().as_str(), "https://slack-gov.com/");
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Environment(Url);

impl Environment {
    /// Returns the commercial Slack, at `slack.com`.
    #[must_use]
    pub fn commercial() -> Self {
        Self(Url::parse("https://slack.com/").expect("the constant is a URL"))
    }

    /// Returns GovSlack, at `slack-gov.com`. You create and configure apps there separately, with
    /// their own ids and secrets.
    #[must_use]
    pub fn gov() -> Self {
        Self(Url::parse("https://slack-gov.com/").expect("the constant is a URL"))
    }

    /// Returns another Slack, such as a fake one, at this base URL.
    ///
    /// # Errors
    ///
    /// Returns [`EnvironmentError`] unless the URL is `https`, or `http` on a loopback host,
    /// because tokens are sent there. A query or a fragment is an error too.
    pub fn at(base: &str) -> Result<Self, EnvironmentError> {
        let mut base = Url::parse(base).map_err(|_| EnvironmentError)?;
        let secure = base.scheme() == "https" || (base.scheme() == "http" && is_loopback(&base));
        if !secure || base.query().is_some() || base.fragment().is_some() {
            return Err(EnvironmentError);
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        Ok(Self(base))
    }

    /// Returns the base URL, which ends with a slash.
    #[must_use]
    pub fn base(&self) -> &Url {
        &self.0
    }

    /// Returns the URL of the page on which a person allows an installation.
    #[must_use]
    pub fn authorize_url(&self) -> Url {
        self.join("oauth/v2/authorize")
    }

    /// Returns the URL of a Web API method.
    #[must_use]
    pub fn api_url(&self, method: &str) -> Url {
        self.join(&format!("api/{method}"))
    }

    fn join(&self, path: &str) -> Url {
        self.0
            .join(path)
            .expect("a relative path of plain letters can be joined to any base")
    }
}

impl Default for Environment {
    fn default() -> Self {
        Self::commercial()
    }
}

/// The error for a base URL that is not allowed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("not a base URL for Slack: use https, or http on localhost, without a query or a fragment")]
pub struct EnvironmentError;

/// Sends an HTTP request to Slack and returns the response. Tests replace it.
///
/// # Contract
///
/// 1. A request is sent at most once. A redirect is returned as the response, and not followed.
/// 2. A response is returned, also with an error status.
///
/// # Consistency
///
/// None.
///
/// # Cancel safety
///
/// If the future is dropped, the request may have reached Slack.
///
/// # Errors
///
/// Returns [`TransportError::NotSent`] only if Slack certainly did not receive the request.
/// Otherwise returns [`TransportError::Lost`].
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Sends one request.
    async fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, TransportError>;
}

/// Why there is no response.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The request may have reached Slack, but no complete response arrived, or it was too large.
    #[error("no usable response arrived from Slack; it may have applied the call")]
    Lost(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The request did not reach Slack.
    #[error("cannot reach Slack; the request was not sent")]
    NotSent(#[source] Box<dyn std::error::Error + Send + Sync>),
}
