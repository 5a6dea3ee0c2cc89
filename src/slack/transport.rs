//! HTTP to Slack: uses TLS, follows no redirects, repeats no request, limits the response's size.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::Client;

use super::{Transport, TransportError};
use crate::https::{self, Failed, Https};

/// Sends requests over the network.
///
/// Uses the proxies from the environment variables `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`. It
/// uses no proxy for this machine itself, and sends plain `http` to this machine only.
#[derive(Clone)]
pub struct HttpTransport(Sender);

#[derive(Clone)]
enum Sender {
    Ours(Arc<Https>),
    Yours(Client),
}

impl HttpTransport {
    /// Creates a transport that trusts Mozilla's root certificates.
    ///
    /// It times out after 5 s while connecting, and after 15 s in total.
    ///
    /// TLS uses the crypto provider of the feature `ring`, which is enabled by default, or of
    /// `aws-lc-rs`. If neither is enabled, TLS uses the default provider of the process, or else
    /// the only one that rustls was built with. If there is no provider, every `https` request
    /// returns
    /// [`TransportError::NotSent`] with the remedy.
    #[must_use]
    pub fn new() -> Self {
        let https = Https::new(https::mozilla_roots(), Matcher::from_env());
        Self(Sender::Ours(Arc::new(https)))
    }

    /// Creates a transport that uses your app's own client.
    ///
    /// Use it for a private certificate authority or a SOCKS proxy. reqwest supports TLS only if a
    /// feature for it is enabled, as by default.
    ///
    /// The client must not follow redirects. It must not repeat requests, because the first request
    /// spends a refresh token. Set timeouts on the client.
    #[must_use]
    pub fn with_client(client: Client) -> Self {
        Self(Sender::Yours(client))
    }
}

impl Default for HttpTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client's `Debug` prints its default headers, which may hold secrets.
        f.write_str("HttpTransport")
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Transport for HttpTransport {
    async fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let response = match &self.0 {
            Sender::Ours(https) => https.send(request).await,
            Sender::Yours(client) => send(client, request).await,
        };
        Ok(response?)
    }
}

async fn send(
    client: &Client,
    request: http::Request<Bytes>,
) -> Result<http::Response<Bytes>, Failed> {
    let request = reqwest::Request::try_from(request).map_err(not_sent)?;
    let response = client.execute(request).await;
    let response = response.map_err(|error| {
        if error.is_connect() {
            not_sent(error)
        } else {
            lost(error)
        }
    })?;
    https::collect(response.into(), lost).await
}

impl From<Failed> for TransportError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Lost(cause) => Self::Lost(cause),
            Failed::NotSent(cause) => Self::NotSent(cause),
        }
    }
}

/// Both errors omit the URL, because the caller knows it.
fn lost(error: reqwest::Error) -> Failed {
    Failed::Lost(error.without_url().into())
}

fn not_sent(error: reqwest::Error) -> Failed {
    Failed::NotSent(error.without_url().into())
}
