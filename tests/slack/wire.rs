//! Failed requests over real sockets: which were certainly not sent, and which may have been
//! carried out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use slack_installs::slack::{
    Environment, Error, ErrorClass, HttpTransport, SlackClient, TransportError,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::token;

/// A server that reads each complete request, and then does one thing.
struct Wire {
    url: String,
    asked: Arc<AtomicUsize>,
    read: Arc<Semaphore>,
}

/// What the server does after it has read a request.
#[derive(Clone)]
enum Then {
    /// Writes these bytes and closes the connection.
    Close(Vec<u8>),
    /// Never responds.
    Hang,
    /// Writes these bytes for the first request of a connection, and cuts the connection at the
    /// next request.
    Once(Vec<u8>),
}

impl Wire {
    async fn new(then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (asked, read) = (Arc::default(), Arc::new(Semaphore::new(0)));
        let wire = Self {
            url: format!("http://{address}"),
            asked: Arc::clone(&asked),
            read: Arc::clone(&read),
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (then, asked, read) = (then.clone(), Arc::clone(&asked), Arc::clone(&read));
                tokio::spawn(serve(stream, then, asked, read));
            }
        });
        wire
    }

    async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        Self::new(Then::Close(answer.into())).await
    }

    fn client(&self) -> SlackClient {
        SlackClient::new(Environment::at(&self.url).expect("loopback"))
    }

    async fn ask(&self) -> Result<(), Error> {
        self.client().auth_revoke(&token()).await
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, then: Then, asked: Arc<AtomicUsize>, read: Arc<Semaphore>) {
    let mut is_first = true;
    while request(&mut stream).await.is_some() {
        asked.fetch_add(1, Ordering::SeqCst);
        read.add_permits(1);
        match &then {
            Then::Close(answer) => {
                // Fails if the client has closed the connection.
                drop(stream.write_all(answer).await);
                return;
            }
            Then::Hang => std::future::pending().await,
            Then::Once(answer) if is_first => {
                stream.write_all(answer).await.expect("the client reads");
                is_first = false;
            }
            Then::Once(_) => return,
        }
    }
}

/// Reads one request with its body as text. Returns `None` once the connection is closed.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut text = String::new();
    loop {
        let mut part = [0; 4096];
        let length = stream.read(&mut part).await.ok().filter(|it| *it > 0)?;
        text.push_str(&String::from_utf8_lossy(&part[..length]));
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.parse().expect("a length"))
        });
        if body.len() >= length.unwrap_or(0) {
            return Some(text);
        }
    }
}

/// Returns a complete HTTP response.
fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}").into()
}

fn assert_lost(outcome: &Result<(), Error>, what: &str) {
    let Err(error @ Error::Transport(TransportError::Lost(_))) = outcome else {
        panic!("{what}: {outcome:?}");
    };
    assert_eq!(error.class(), ErrorClass::Ambiguous, "{what}");
    let mut shown = format!("{error} {error:?}");
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        shown.push_str(&format!(" {inner} {inner:?}"));
        source = inner.source();
    }
    assert!(!shown.contains("/api/"), "the URL is left out: {shown}");
}

#[tokio::test]
async fn a_request_whose_connection_is_cut_may_have_been_carried_out_and_is_sent_once() {
    let whole = answer("200 OK", "", r#"{"ok":true}"#);
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"ok\"\r\n";
    let cases: [(&str, &[u8]); 7] = [
        ("before the answer", b""),
        ("in the status line", b"HTTP/1.1 2"),
        ("in the headers", b"HTTP/1.1 200 OK\r\ncontent-le"),
        ("before the body", &whole[..whole.len() - 11]),
        ("in the body", &whole[..whole.len() - 1]),
        ("between chunks", chunked.as_bytes()),
        (
            "by something that speaks no HTTP",
            b"220 mail.example ESMTP\r\n",
        ),
    ];
    for (what, begun) in cases {
        let wire = Wire::answering(begun).await;
        assert_lost(&wire.ask().await, what);
        assert_eq!(wire.asked(), 1, "{what}");
    }
    assert!(Wire::answering(whole).await.ask().await.is_ok());
}

#[tokio::test]
async fn a_kept_connection_that_is_cut_at_the_next_request_has_it_sent_once() {
    let wire = Wire::new(Then::Once(answer("200 OK", "", r#"{"ok":true}"#))).await;
    let slack = wire.client();
    slack.auth_revoke(&token()).await.expect("received");
    assert_lost(&slack.auth_revoke(&token()).await, "the second one");
    assert_eq!(wire.asked(), 2);
}

#[tokio::test]
async fn nothing_that_slack_answers_makes_a_request_be_sent_twice() {
    let elsewhere = Wire::answering(answer("200 OK", "", r#"{"ok":true}"#)).await;
    let to = format!("location: {}/api/auth.revoke\r\n", elsewhere.url);
    for (status, code) in [
        ("301 Moved", 301),
        ("302 Found", 302),
        ("303 See Other", 303),
        ("307 Temporary", 307),
        ("308 Permanent", 308),
        ("408 Request Timeout", 408),
        ("421 Misdirected", 421),
        ("500 Oops", 500),
        ("502 Bad Gateway", 502),
        ("503 Unavailable", 503),
    ] {
        let wire = Wire::answering(answer(status, &to, "<html>")).await;
        match wire.ask().await {
            Err(error @ Error::Http { status }) => {
                assert_eq!(status, code);
                assert_eq!(error.class(), ErrorClass::Ambiguous);
            }
            other => panic!("{status}: {other:?}"),
        }
        assert_eq!(wire.asked(), 1, "{status}");
    }
    assert_eq!(elsewhere.asked(), 0, "no redirect is followed");
}

#[tokio::test]
async fn an_answer_has_a_megabyte_at_most() {
    const LARGEST: usize = 1024 * 1024;
    let padded = |length: usize| {
        let answer = r#"{"ok":true}"#;
        format!("{answer}{}", " ".repeat(length - answer.len()))
    };
    let largest = Wire::answering(answer("200 OK", "", &padded(LARGEST))).await;
    largest.ask().await.expect("it is read");
    let larger = Wire::answering(answer("200 OK", "", &padded(LARGEST + 1))).await;
    assert_lost(&larger.ask().await, "too large");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_lost_after_fifteen_seconds() {
    let wire = Wire::new(Then::Hang).await;
    let slack = wire.client();
    let call = tokio::spawn(async move { slack.auth_revoke(&token()).await });
    drop(wire.read.acquire().await.expect("it stays open"));
    // From here on the clock advances only while all tasks wait.
    tokio::time::pause();
    let paused = Instant::now();
    assert_lost(&call.await.expect("no panic"), "it hangs");
    let waited = paused.elapsed();
    assert!(waited < Duration::from_secs(16), "{waited:?}");
    assert!(waited > Duration::from_secs(10), "{waited:?}");
}

// Other systems accept a connection beyond the length of the queue.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_connection_that_is_not_made_within_five_seconds_was_not_used() {
    // The queue of one connection is full, so the next connection is neither accepted nor refused.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket
        .bind("127.0.0.1:0".parse().expect("an address"))
        .expect("a port");
    let listener = socket.listen(0).expect("it listens");
    let address = listener.local_addr().expect("an address");
    let _taken = TcpStream::connect(address).await.expect("there is room");
    let slack = SlackClient::new(Environment::at(&format!("http://{address}")).expect("loopback"));
    tokio::time::pause();
    let paused = Instant::now();
    let error = slack.auth_revoke(&token()).await.expect_err("not accepted");
    assert_matches!(error, Error::Transport(TransportError::NotSent(_)));
    assert_eq!(error.class(), ErrorClass::Retry);
    let shown = format!("{error:?}");
    assert!(!shown.contains("/api/"), "the URL is left out: {shown}");
    let waited = paused.elapsed();
    assert!(waited < Duration::from_secs(6), "{waited:?}");
}

#[tokio::test]
async fn slack_is_told_who_asks_and_a_clients_own_settings_reach_this_machine_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let heard = tokio::spawn(async move {
        let mut heard = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.expect("a caller");
            heard.push(request(&mut stream).await.expect("a request"));
        }
        heard
    });
    let environment = Environment::at(&format!("http://{address}")).expect("loopback");
    let ours = SlackClient::new(environment.clone());
    ours.auth_revoke(&token()).await.expect_err("cut");
    // reqwest does not build a client without a TLS provider.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = reqwest::Client::builder()
        .user_agent("the-hosts-own")
        .build();
    let transport = HttpTransport::with_client(client.expect("a client"));
    let theirs = SlackClient::with_transport(environment, transport);
    theirs.auth_revoke(&token()).await.expect_err("cut");
    let heard = heard.await.expect("no panic");
    let version = concat!(
        "user-agent: slack-installs/",
        env!("CARGO_PKG_VERSION"),
        "\r\n"
    );
    assert!(heard[0].contains(version), "{}", heard[0]);
    assert!(
        heard[1].contains("user-agent: the-hosts-own\r\n"),
        "{}",
        heard[1]
    );
}
