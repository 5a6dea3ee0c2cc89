//! HTTP to Slack: rustls on ring, no redirects, no repeated requests, bounded answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use reqwest::{Client, ClientBuilder, redirect, retry};
use rustls::{ClientConfig, RootCertStore};

use super::{Transport, TransportError, is_loopback};

/// Sends requests over the network. Proxies that the environment names are used, except to this
/// machine itself.
#[derive(Clone)]
pub struct HttpTransport {
    client: Client,
    loopback: Client,
}

impl HttpTransport {
    /// A transport with timeouts of 5 s to connect and 15 s in all, and the Mozilla roots.
    #[must_use]
    pub fn new() -> Self {
        let roots = RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring supports the default protocol versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let builder = || {
            Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .redirect(redirect::Policy::none())
                .retry(retry::never())
                .referer(false)
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(TIMEOUT)
                .user_agent(USER_AGENT)
        };
        let build = |builder: ClientBuilder| {
            builder
                .build()
                .expect("the TLS configuration is rustls', as reqwest wants it")
        };
        Self {
            client: build(builder()),
            loopback: build(builder().no_proxy()),
        }
    }

    /// A transport over the host's own client, for a proxy or a private certificate authority.
    ///
    /// The client must not follow redirects and must not repeat requests: a refresh token is
    /// spent by the first one. Give it timeouts.
    #[must_use]
    pub fn with_client(client: Client) -> Self {
        Self {
            loopback: client.clone(),
            client,
        }
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
        let request = reqwest::Request::try_from(request).map_err(not_sent)?;
        let client = match is_loopback(request.url()) {
            true => &self.loopback,
            false => &self.client,
        };
        let answered = client.execute(request).await;
        let mut answer = answered.map_err(|error| match error.is_connect() {
            true => not_sent(error),
            false => lost(error),
        })?;
        let mut response = http::Response::builder().status(answer.status());
        if let Some(headers) = response.headers_mut() {
            *headers = std::mem::take(answer.headers_mut());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(lost)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(TransportError::Lost("the answer is too large".into()));
            }
            body.extend_from_slice(&chunk);
        }
        response
            .body(body.freeze())
            .map_err(|error| TransportError::Lost(error.into()))
    }
}

/// The URL is left out of both: it says nothing that the caller does not know.
fn lost(error: reqwest::Error) -> TransportError {
    TransportError::Lost(error.without_url().into())
}

fn not_sent(error: reqwest::Error) -> TransportError {
    TransportError::NotSent(error.without_url().into())
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A person waits in front of the browser; Slack answers within a second as a rule.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The largest answer that is read. Ours have a few kB; the largest page of `auth.teams.list`
/// has about 100 kB.
const MAX_ANSWER: usize = 1024 * 1024;

const USER_AGENT: &str = concat!("slack-installs/", env!("CARGO_PKG_VERSION"));
