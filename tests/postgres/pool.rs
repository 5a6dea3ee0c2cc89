//! The pool of a backend on a server that accepts no further connections.

use std::error::Error as StdError;
use std::time::{Duration, Instant};

use slack_installs::backend::{Backend, Error, Expect, PostgresOptions, Row};
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};

use super::servers::history::join_all;
use super::servers::postgres::Postgres;
use super::{PATIENCE, PAUSE, fast, open, partition, put, read, row, slot};

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_a_connection_of_its_own_pool_is_idle() {
    let server = full_at(8).await;
    let url = server.database("shared").await;
    // Two pools of up to ten connections each, as in two processes.
    let backends = [open(&url, fast()).await, open(&url, fast()).await];
    for backend in &backends {
        put(backend, &row("{}"), Expect::Any)
            .await
            .expect("there is room for one connection of each");
    }
    let (slots, partition) = ([slot("bot")], partition("app/T1"));
    for _ in 0..3 {
        let reads = (0..64).map(|nth| backends[nth % 2].read(&partition, &slots));
        for read in join_all(reads).await {
            read.expect("a connection comes back");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_get_no_connection_say_why_the_server_gives_none() {
    let server = full_at(FEW).await;
    let url = server.database("crowded").await;
    let options = PostgresOptions {
        acquire_timeout: Duration::from_millis(500),
        pool_size: 1,
        ..fast()
    };
    let backend = open(&url, options).await;
    let others = take_all(&url).await;
    // One read is refused, and the others wait for their turn.
    let reads = (0..3).map(|_| read(&backend));
    for read in join_all(reads).await {
        let Err(Error::Unavailable(reason)) = read else {
            panic!("{read:?}")
        };
        let reason = with_causes(&*reason);
        assert!(reason.contains("too many clients already"), "{reason}");
    }
    drop(others);
    assert_eq!(until_answered(&backend).await, None);
}

/// Starts a server that accepts at most this many connections.
async fn full_at(connections: usize) -> Postgres {
    let most = format!("max_connections={connections}");
    let settings = [
        "fsync=off",
        "full_page_writes=off",
        "superuser_reserved_connections=0",
        &most,
    ];
    Postgres::start_with(&settings).await
}

/// Takes all of the server's connections. Polls, because the server may still count some that were
/// just closed.
async fn take_all(url: &str) -> Vec<PgConnection> {
    let options: PgConnectOptions = url.parse().expect("our own URL");
    let deadline = Instant::now() + PATIENCE;
    let mut taken = Vec::new();
    while taken.len() < FEW {
        match options.connect().await {
            Ok(connection) => taken.push(connection),
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
    }
    taken
}

/// Reads until the server has room again, and returns the row.
async fn until_answered(backend: &dyn Backend) -> Option<Row> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match read(backend).await {
            Ok(row) => return row,
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn with_causes(error: &(dyn StdError + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    let causes: Vec<_> = causes.map(ToString::to_string).collect();
    causes.join(": ")
}

/// How many connections the crowded server accepts.
const FEW: usize = 4;
