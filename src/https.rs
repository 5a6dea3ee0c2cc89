//! The HTTP client: hyper with rustls, through the proxy that the environment names. It follows no
//! redirects, repeats no request, and limits the response's size.
//!
//! reqwest can do the same, but only with its feature for rustls. That feature changes
//! `reqwest::Client::new()` in the whole app: without a default provider, it panics.

use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::header::{ACCEPT, USER_AGENT};
use http::{HeaderValue, Request, Response, Uri, uri::Scheme};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::{Client, connect::Connect};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;
use url::Url;

use crate::tls::{self, NoProvider};
use crate::wipe::Buffer;

type Body = Full<Bytes>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The server may have received the request.
    Lost(BoxError),
    /// The server certainly did not receive the request.
    NotSent(BoxError),
}

/// Sends requests with TLS, and to this machine also without TLS.
pub(crate) struct Https {
    allows_plain: bool,
    plain: Client<HttpConnector, Body>,
    secure: OnceLock<Client<WithTimeout, Body>>,
    roots: Arc<RootCertStore>,
    proxies: Arc<Matcher>,
}

impl Https {
    pub(crate) fn new(roots: RootCertStore, proxies: Matcher) -> Self {
        Self {
            allows_plain: false,
            plain: client(tcp()),
            secure: OnceLock::new(),
            roots: Arc::new(roots),
            proxies: Arc::new(proxies),
        }
    }

    /// Also sends requests without TLS to other machines.
    #[cfg(feature = "vault")]
    pub(crate) fn with_plain_http(mut self) -> Self {
        self.allows_plain = true;
        self
    }

    pub(crate) async fn send(
        &self,
        mut request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Failed> {
        let headers = request.headers_mut();
        headers.entry(ACCEPT).or_insert(ACCEPT_ANY);
        headers.entry(USER_AGENT).or_insert(AGENT);
        let secure = request.uri().scheme() == Some(&Scheme::HTTPS);
        if !secure && !self.allows_plain && !is_this_machine(request.uri()) {
            let reason = "plain http is allowed to this machine only: use https";
            return Err(not_sent(reason));
        }
        let request = request.map(Full::new);
        let exchange = async {
            if secure {
                exchange(self.secure().map_err(not_sent)?, request).await
            } else {
                exchange(&self.plain, request).await
            }
        };
        match timeout(TIMEOUT, exchange).await {
            Ok(result) => result,
            Err(late) => Err(Failed::Lost(late.into())),
        }
    }

    /// Returns the client for TLS. Creates it at its first use, so that your app can install a
    /// crypto provider first.
    fn secure(&self) -> Result<&Client<WithTimeout, Body>, NoProvider> {
        if let Some(client) = self.secure.get() {
            return Ok(client);
        }
        let config = ClientConfig::builder_with_provider(tls::provider()?)
            .with_safe_default_protocol_versions()
            .map_err(|_| NoProvider)?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        let connector = ProxyConnector {
            tcp: tcp(),
            proxies: Arc::clone(&self.proxies),
            to_proxy: Arc::new(config.clone()),
        };
        let mut config = config;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let made = client(WithTimeout(HttpsConnector::from((connector, config))));
        Ok(self.secure.get_or_init(|| made))
    }
}

async fn exchange<C>(
    client: &Client<C, Body>,
    request: Request<Body>,
) -> Result<Response<Bytes>, Failed>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let response = client.request(request).await;
    let response = response.map_err(|error| {
        if error.is_connect() {
            not_sent(error)
        } else {
            lost(error)
        }
    })?;
    collect(response, lost).await
}

/// Reads a whole response of at most [`MAX_ANSWER`] bytes. It may contain tokens, so it is wiped
/// when it is dropped.
pub(crate) async fn collect<B: BodyExt>(
    response: Response<B>,
    lost: impl Fn(B::Error) -> Failed,
) -> Result<Response<Bytes>, Failed> {
    let (head, body) = response.into_parts();
    let mut frames = pin!(body);
    let mut body = Buffer::with_capacity(TYPICAL_ANSWER);
    while let Some(frame) = frames.frame().await {
        let Ok(data) = frame.map_err(&lost)?.into_data() else {
            continue;
        };
        if body.len() + data.remaining() > MAX_ANSWER {
            return Err(Failed::Lost("the response is too large: over 1 MiB".into()));
        }
        body.put(data);
    }
    Ok(Response::from_parts(head, body.freeze()))
}

fn client<C: Connect + Clone>(connector: C) -> Client<C, Body> {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .build(connector)
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE));
    tcp.set_keepalive_retries(Some(3));
    tcp
}

/// Connects to a server, directly or through a proxy.
#[derive(Clone)]
struct ProxyConnector {
    tcp: HttpConnector,
    proxies: Arc<Matcher>,
    /// For a proxy that requires TLS. It offers no HTTP/2, because CONNECT uses HTTP/1.1 here.
    to_proxy: Arc<ClientConfig>,
}

impl ProxyConnector {
    async fn connect(mut self, to: Uri) -> Result<MaybeHttpsStream<TokioIo<TcpStream>>, BoxError> {
        let proxy = if is_this_machine(&to) {
            None
        } else {
            self.proxies.intercept(&to)
        };
        let Some(proxy) = proxy else {
            return Ok(MaybeHttpsStream::Http(self.tcp.call(to).await?));
        };
        let first = HttpsConnector::from((self.tcp, self.to_proxy));
        let mut tunnel = Tunnel::new(proxy.uri().clone(), first);
        if let Some(credentials) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(credentials.clone());
        }
        Ok(tunnel.call(to).await?)
    }
}

type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

impl Service<Uri> for ProxyConnector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        Box::pin(self.clone().connect(to))
    }
}

/// Connects, including the proxy and the TLS handshake, and times out after [`CONNECT_TIMEOUT`].
#[derive(Clone)]
struct WithTimeout(HttpsConnector<ProxyConnector>);

impl Service<Uri> for WithTimeout {
    type Response = <HttpsConnector<ProxyConnector> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.0.call(to);
        Box::pin(async move { timeout(CONNECT_TIMEOUT, connecting).await? })
    }
}

/// Returns the certificate authorities that Mozilla trusts.
pub(crate) fn mozilla_roots() -> RootCertStore {
    RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    }
}

/// Returns whether a URL leads to this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(domain)) => domain == "localhost" || domain.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

fn is_this_machine(uri: &Uri) -> bool {
    Url::parse(&uri.to_string()).is_ok_and(|url| is_loopback(&url))
}

fn lost(error: impl Into<BoxError>) -> Failed {
    Failed::Lost(error.into())
}

fn not_sent(error: impl Into<BoxError>) -> Failed {
    Failed::NotSent(error.into())
}

/// The largest response that is read, in bytes. The responses that this crate needs have a few kB.
/// The largest page of `auth.teams.list` has about 100 kB.
const MAX_ANSWER: usize = 1024 * 1024;

const TYPICAL_ANSWER: usize = 4 * 1024;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The time for a whole call. A person may wait for it in a browser. Slack usually responds within
/// a second.
const TIMEOUT: Duration = Duration::from_secs(15);

const KEEPALIVE: Duration = Duration::from_secs(15);

const ACCEPT_ANY: HeaderValue = HeaderValue::from_static("*/*");

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("slack-installs/", env!("CARGO_PKG_VERSION")));

#[cfg(all(test, feature = "ring"))]
mod tests;
