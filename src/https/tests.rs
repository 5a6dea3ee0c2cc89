use std::path::Path;
use std::process::Command;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{advance, pause};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::*;

/// A certificate authority, and a server with its certificate for 127.0.0.1 and `slack.example`.
struct Server {
    acceptor: TlsAcceptor,
    authority: RootCertStore,
}

impl Server {
    fn new() -> Self {
        let files = tempfile::tempdir().expect("a temporary directory");
        let files = files.path();
        let names = "subjectAltName=IP:127.0.0.1,DNS:slack.example";
        std::fs::write(files.join("names"), names).expect("the directory is writable");
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        openssl(
            files,
            &format!("req -x509 {key} -days 2 -subj /CN=ca -keyout ca.key -out ca.pem"),
        );
        openssl(
            files,
            &format!("req {key} -subj /CN=slack -keyout slack.key -out slack.csr"),
        );
        openssl(
            files,
            "x509 -req -in slack.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
             -extfile names -out slack.pem",
        );
        let certificate =
            |name| CertificateDer::from_pem_file(files.join(name)).expect("openssl wrote it");
        let key = PrivateKeyDer::from_pem_file(files.join("slack.key")).expect("openssl wrote it");
        let config = ServerConfig::builder_with_provider(
            tls::provider().expect("the feature ring is enabled"),
        )
        .with_safe_default_protocol_versions()
        .expect("ring supports the default TLS versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate("slack.pem")], key)
        .expect("the key belongs to the certificate");
        let mut authority = RootCertStore::empty();
        authority
            .add(certificate("ca.pem"))
            .expect("it is an authority");
        Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            authority,
        }
    }

    /// Returns a client that trusts the authority.
    fn client(&self, proxies: Matcher) -> Https {
        Https::new(self.authority.clone(), proxies)
    }
}

fn openssl(directory: &Path, arguments: &str) {
    let mut openssl = Command::new("openssl");
    openssl
        .args(arguments.split_whitespace())
        .current_dir(directory);
    let made = openssl
        .output()
        .expect("openssl runs; install it with `apt-get install openssl`");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}");
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener
        .local_addr()
        .expect("the listener has an address")
        .port();
    (listener, port)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    listener.accept().await.expect("a client connects").0
}

fn get(url: &str) -> Request<Bytes> {
    Request::get(url)
        .body(Bytes::new())
        .expect("the URL is valid")
}

/// Reads one request that has no body, and returns its head.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(stream.read_u8().await.expect("the head is complete").into());
    }
    head
}

async fn respond(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    let head = head(stream).await;
    let response = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    stream
        .write_all(response.as_bytes())
        .await
        .expect("the client reads");
    stream.flush().await.expect("the client reads");
    head
}

/// Runs the server and the client to their ends. Fails the test if one of them never ends.
async fn both<S, C>(served: impl Future<Output = S>, sent: impl Future<Output = C>) -> (S, C) {
    let both = timeout(TIMEOUT + CONNECT_TIMEOUT, async {
        tokio::join!(served, sent)
    })
    .await;
    both.expect("both sides end")
}

/// Returns a proxy setting for a port on which no server listens.
fn no_proxy_there() -> Matcher {
    Matcher::builder().all("http://127.0.0.1:1").build()
}

#[tokio::test]
async fn a_server_on_this_machine_is_reached_by_tls_and_without_the_proxy() {
    let server = Server::new();
    let (listener, port) = listen().await;
    let served = async {
        let stream = accept(&listener).await;
        respond(
            &mut server
                .acceptor
                .accept(stream)
                .await
                .expect("the TLS handshake succeeds"),
        )
        .await
    };
    let client = server.client(no_proxy_there());
    let url = format!("https://127.0.0.1:{port}/api/auth.test");
    let (head, response) = both(served, client.send(get(&url))).await;
    assert_eq!(response.expect("the request succeeds").body(), "ok");
    assert!(
        head.starts_with("GET /api/auth.test HTTP/1.1\r\n"),
        "{head}"
    );
    let ourselves = format!("user-agent: slack-installs/{}", env!("CARGO_PKG_VERSION"));
    assert!(head.contains(&ourselves), "{head}");
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_stops_the_request() {
    let (server, stranger) = (Server::new(), Server::new());
    let (listener, port) = listen().await;
    let served = async {
        let stream = accept(&listener).await;
        server.acceptor.accept(stream).await.map(|_| ())
    };
    let client = stranger.client(no_proxy_there());
    let url = format!("https://127.0.0.1:{port}/");
    let (served, response) = both(served, client.send(get(&url))).await;
    assert!(matches!(response, Err(Failed::NotSent(_))));
    served.expect_err("the client ends the handshake");
}

#[tokio::test]
async fn http_2_is_offered() {
    let server = Server::new();
    let mut config = ServerConfig::clone(server.acceptor.config());
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, port) = listen().await;
    let served = async {
        let stream = acceptor.accept(accept(&listener).await).await;
        stream
            .expect("the TLS handshake succeeds")
            .get_ref()
            .1
            .alpn_protocol()
            .map(<[u8]>::to_vec)
    };
    let client = server.client(no_proxy_there());
    let url = format!("https://127.0.0.1:{port}/");
    let (protocol, response) = both(served, client.send(get(&url))).await;
    assert_eq!(protocol.as_deref(), Some(b"h2".as_slice()));
    assert!(matches!(response, Err(Failed::Lost(_))), "{response:?}");
}

/// Opens the tunnel that the client requests, and serves one request in it.
async fn tunnel<S>(server: &Server, mut stream: S) -> String
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let asked = head(&mut stream).await;
    let opened = b"HTTP/1.1 200 Connection established\r\n\r\n";
    stream.write_all(opened).await.expect("the client reads");
    stream.flush().await.expect("the client reads");
    let mut inside: TlsStream<S> = server
        .acceptor
        .accept(stream)
        .await
        .expect("the TLS handshake succeeds");
    respond(&mut inside).await;
    asked
}

#[tokio::test]
async fn another_machine_is_reached_through_the_proxy_with_its_credentials() {
    let server = Server::new();
    let (listener, port) = listen().await;
    let proxy = format!("http://Aladdin:opensesame@127.0.0.1:{port}");
    let client = server.client(Matcher::builder().https(proxy).build());
    let served = async { tunnel(&server, accept(&listener).await).await };
    let (asked, response) = both(served, client.send(get("https://slack.example/"))).await;
    assert_eq!(response.expect("the request succeeds").body(), "ok");
    assert!(asked.starts_with("CONNECT slack.example:443 "), "{asked}");
    let credentials = "proxy-authorization: basic qwxhzgrpbjpvcgvuc2vzyw1l";
    assert!(asked.to_lowercase().contains(credentials), "{asked}");
}

#[tokio::test]
async fn a_proxy_may_be_reached_by_tls_and_is_spoken_to_in_http_1() {
    let server = Server::new();
    let mut config = ServerConfig::clone(server.acceptor.config());
    config.alpn_protocols = vec![b"h2".to_vec()];
    let proxy_acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, port) = listen().await;
    let proxy = format!("https://127.0.0.1:{port}");
    let client = server.client(Matcher::builder().https(proxy).build());
    let served = async {
        let stream = proxy_acceptor.accept(accept(&listener).await).await;
        let stream = stream.expect("the TLS handshake succeeds");
        assert_eq!(stream.get_ref().1.alpn_protocol(), None);
        tunnel(&server, stream).await
    };
    let (asked, response) = both(served, client.send(get("https://slack.example/"))).await;
    assert_eq!(response.expect("the request succeeds").body(), "ok");
    assert!(asked.starts_with("CONNECT slack.example:443 "), "{asked}");
}

#[tokio::test]
async fn nothing_is_sent_to_another_machine_without_tls() {
    let client = Https::new(RootCertStore::empty(), Matcher::builder().build());
    let response = client.send(get("http://slack.example/")).await;
    let Err(Failed::NotSent(cause)) = response else {
        panic!("{response:?}");
    };
    assert!(cause.to_string().contains("this machine only"), "{cause}");
}

#[tokio::test]
async fn a_handshake_that_hangs_is_given_up_with_nothing_sent() {
    let server = Server::new();
    let (listener, port) = listen().await;
    let served = async {
        let mut stream = accept(&listener).await;
        stream
            .read_u8()
            .await
            .expect("the client begins the handshake");
        pause();
        advance(CONNECT_TIMEOUT).await;
        stream
    };
    let client = server.client(no_proxy_there());
    let url = format!("https://127.0.0.1:{port}/");
    let (_stream, response) = both(served, client.send(get(&url))).await;
    assert!(matches!(response, Err(Failed::NotSent(_))), "{response:?}");
}

#[tokio::test]
async fn a_response_that_never_comes_is_lost() {
    let server = Server::new();
    let (listener, port) = listen().await;
    let served = async {
        let stream = server.acceptor.accept(accept(&listener).await).await;
        let mut stream = stream.expect("the TLS handshake succeeds");
        head(&mut stream).await;
        pause();
        advance(TIMEOUT).await;
        stream
    };
    let client = server.client(no_proxy_there());
    let url = format!("https://127.0.0.1:{port}/");
    let (_stream, response) = both(served, client.send(get(&url))).await;
    assert!(matches!(response, Err(Failed::Lost(_))), "{response:?}");
}
