//! The number of requests to the server, counted on the wire.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use slack_installs::InstallationStore as _;
use slack_installs::backend::{Backend, PostgresOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::servers::postgres::{self, Postgres};
use super::support::Db;
use super::support::installs::{With as _, in_workspace, workspace_key};
use super::{fast, open};

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_is_one_round_trip() {
    let server = Postgres::start().await;
    server.database("counted").await;
    let requests = Arc::new(AtomicUsize::new(0));
    let port = counting(server.port(), Arc::clone(&requests)).await;
    let options = PostgresOptions {
        // With one connection, the next call waits until the previous call has finished on it.
        pool_size: 1,
        ..fast()
    };
    // Without TLS the only message without a type byte is the first one, which `count` expects.
    let url = postgres::url(port, "postgres", "counted") + "?sslmode=disable";
    let backend: Arc<dyn Backend> = Arc::new(open(&url, options).await);
    let store = Db::new(backend).store().await;
    let installation = in_workspace("T0ALPHA0001").with_bot("xoxb-alpha");
    store.store(&installation).await.expect("stored");
    let key = workspace_key("T0ALPHA0001");
    // The first fetch also prepares the statement.
    store.fetch(&key, None).await.expect("the server responds");

    let before = requests.load(Ordering::SeqCst);
    for _ in 0..FETCHES {
        let fetched = store.fetch(&key, None).await.expect("the server responds");
        assert!(fetched.is_some());
    }
    let asked = requests.load(Ordering::SeqCst) - before;
    // The pool tests a connection that was idle for a second, which costs a request. This happens
    // only if the machine stalls between two fetches.
    assert!(
        (FETCHES..FETCHES * 3 / 2).contains(&asked),
        "{asked} for {FETCHES}"
    );
}

/// Forwards bytes and counts the requests that need a response. Returns the port.
async fn counting(upstream: u16, requests: Arc<AtomicUsize>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("loopback has a free port");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", upstream)).await;
            let (mut from_server, to_server) = server.expect("the server runs").into_split();
            let (from_client, mut to_client) = client.into_split();
            tokio::spawn(count(from_client, to_server, Arc::clone(&requests)));
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        }
    });
    port
}

/// Reads message by message. Each message has a length, and all but the first have a type byte.
async fn count(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    requests: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    let mut name = None;
    loop {
        let length = from.read_u32().await?;
        let mut rest = vec![0; length as usize - 4];
        from.read_exact(&mut rest).await?;
        // Counts before forwarding, so before the server can respond.
        if matches!(name, Some(SYNC | QUERY)) {
            requests.fetch_add(1, Ordering::SeqCst);
        }
        let head = name.into_iter().chain(length.to_be_bytes());
        to.write_all(&head.chain(rest).collect::<Vec<_>>()).await?;
        name = Some(from.read_u8().await?);
    }
}

const FETCHES: usize = 20;
const QUERY: u8 = b'Q';
const SYNC: u8 = b'S';
