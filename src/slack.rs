//! Slack's Web API: the calls that this crate makes, and what their errors mean.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;
use url::Url;

mod answers;
mod client;
mod error;
mod transport;

pub use answers::{AuthTest, Issued, Renewed, UserInfo};
pub use client::{ClientCredentials, SlackClient};
pub use error::{Error, ErrorClass, ErrorCode};
pub use transport::HttpTransport;

/// Which Slack: the commercial one, GovSlack, or a fake. All hosts follow from it.
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
    /// slack.com.
    #[must_use]
    pub fn commercial() -> Self {
        Self(Url::parse("https://slack.com/").expect("a constant"))
    }

    /// slack-gov.com: its apps are made and configured apart, with their own ids and secrets.
    #[must_use]
    pub fn gov() -> Self {
        Self(Url::parse("https://slack-gov.com/").expect("a constant"))
    }

    /// Another Slack, such as a fake one, at this base URL.
    ///
    /// # Errors
    ///
    /// [`EnvironmentError`] unless it is `https`, or `http` on a loopback host: tokens go there.
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

    /// The base URL, with a slash at its end.
    #[must_use]
    pub fn base(&self) -> &Url {
        &self.0
    }

    /// The page on which a person allows an installation.
    #[must_use]
    pub fn authorize_url(&self) -> Url {
        self.join("oauth/v2/authorize")
    }

    /// Where a Web API method is called.
    #[must_use]
    pub fn api_url(&self, method: &str) -> Url {
        self.join(&format!("api/{method}"))
    }

    fn join(&self, path: &str) -> Url {
        self.0
            .join(path)
            .expect("a relative path of plain letters joins any base")
    }
}

impl Default for Environment {
    fn default() -> Self {
        Self::commercial()
    }
}

/// A URL that no Slack can be at.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error(
    "not a base URL for Slack: it must be https, or http on localhost, without query or fragment"
)]
pub struct EnvironmentError;

/// Whether a URL's host is this machine itself.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(domain)) => domain == "localhost" || domain.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// Carries a request to Slack and brings the answer back. Tests replace it.
///
/// # Contract
///
/// 1. A request is sent once at most; a redirect is an answer, not followed.
/// 2. An answer is given whatever its status.
///
/// # Consistency
///
/// None.
///
/// # Cancel safety
///
/// Dropped, the request may or may not have reached Slack.
///
/// # Errors
///
/// [`TransportError::NotSent`] only if Slack certainly did not get the request.
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Sends one request.
    async fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, TransportError>;
}

/// Why there is no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The request may have reached Slack, and no answer came, or none of a bearable size.
    #[error("no answer came from Slack")]
    Lost(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Slack was not reached.
    #[error("Slack could not be reached")]
    NotSent(#[source] Box<dyn std::error::Error + Send + Sync>),
}
