//! HTTP to Slack: by TLS, no redirects, no repeated requests, bounded responses.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::Client;
use rustls::RootCertStore;

use self::https::{Https, collect};
use super::{Transport, TransportError};

mod https;

/// Sends requests over the network. Uses the proxies that the environment names (`HTTPS_PROXY`,
/// `ALL_PROXY`, `NO_PROXY`), except to this machine itself.
///
/// Plain `http` is sent to this machine only.
#[derive(Clone)]
pub struct HttpTransport(Sender);

#[derive(Clone)]
enum Sender {
    Ours(Arc<Https>),
    Yours(Client),
}

impl HttpTransport {
    /// A transport with timeouts of 5 s to connect and 15 s in all, and Mozilla's roots.
    ///
    /// TLS uses the crypto provider of the feature `ring`, which is on by default, or of
    /// `aws-lc-rs`. Without both, it uses the default provider of the process, or else the only
    /// one that rustls was built with. If there is none, every `https` request returns
    /// [`TransportError::NotSent`] with the remedy.
    #[must_use]
    pub fn new() -> Self {
        let roots = RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        Self(Sender::Ours(Arc::new(Https::new(
            roots,
            Matcher::from_env(),
        ))))
    }

    /// A transport over your app's own client, for a private certificate authority or a SOCKS
    /// proxy. reqwest has TLS only with a feature for it, such as its default ones.
    ///
    /// The client must not follow redirects and must not repeat requests: a refresh token is
    /// spent by the first one. Give it timeouts.
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
        // The client's own Debug shows default headers.
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
        match &self.0 {
            Sender::Ours(https) => https.send(request).await,
            Sender::Yours(client) => send(client, request).await,
        }
    }
}

async fn send(
    client: &Client,
    request: http::Request<Bytes>,
) -> Result<http::Response<Bytes>, TransportError> {
    let request = reqwest::Request::try_from(request).map_err(not_sent)?;
    let response = client.execute(request).await;
    let response = response.map_err(|error| {
        if error.is_connect() {
            not_sent(error)
        } else {
            lost(error)
        }
    })?;
    collect(response.into(), lost).await
}

/// The URL is left out of both: it says nothing that the caller does not know.
fn lost(error: reqwest::Error) -> TransportError {
    TransportError::Lost(error.without_url().into())
}

fn not_sent(error: reqwest::Error) -> TransportError {
    TransportError::NotSent(error.without_url().into())
}
