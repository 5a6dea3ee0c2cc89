use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tokio::task::yield_now;

use super::*;

#[tokio::test]
async fn a_call_that_came_to_its_end_leaves_its_connection_to_the_next() {
    let pool = pool(one());
    mark(&pool).await.keep();
    assert!(is_marked(&pool).await);
}

#[tokio::test]
async fn a_call_that_was_left_in_the_middle_does_not() {
    let pool = pool(one());
    drop(mark(&pool).await);
    assert!(!is_marked(&pool).await);
}

#[tokio::test]
async fn a_connection_that_is_too_old_is_not_kept() {
    let age = Duration::ZERO;
    let pool = pool(Limits { age, ..one() });
    mark(&pool).await.keep();
    assert!(!is_marked(&pool).await);
}

#[tokio::test]
async fn a_connection_that_was_idle_for_too_long_is_closed() {
    let idle = Duration::ZERO;
    let pool = pool(Limits { idle, ..one() });
    mark(&pool).await.keep();
    assert!(!is_marked(&pool).await);
}

#[tokio::test]
async fn a_connection_that_is_suspect_and_works_is_used() {
    let pool = pool(one());
    mark(&pool).await.keep();
    pool.source.suspects.store(true, Ordering::SeqCst);
    assert!(is_marked(&pool).await);
}

#[tokio::test]
async fn no_more_connections_are_given_out_than_the_pool_has() {
    let pool = pool(impatient());
    let lease = mark(&pool).await;
    let refused = pool.acquire().await;
    assert!(matches!(refused, Err(Error::Unavailable(_))));
    lease.keep();
    assert!(is_marked(&pool).await);
}

#[tokio::test]
async fn a_call_that_is_refused_a_connection_takes_one_that_comes_back() {
    let pool = pool(Limits { size: 2, ..one() });
    let lease = mark(&pool).await;
    pool.source.is_full.store(true, Ordering::SeqCst);
    let (marked, ()) = tokio::join!(is_marked(&pool), async {
        pool.source.asked(2).await;
        lease.keep();
    });
    assert!(marked);
}

#[tokio::test]
async fn a_call_whose_connection_is_slow_to_open_takes_one_that_comes_back() {
    let pool = pool(Limits { size: 2, ..one() });
    let lease = mark(&pool).await;
    pool.source.hangs.store(true, Ordering::SeqCst);
    let (marked, ()) = tokio::join!(is_marked(&pool), async {
        pool.source.asked(2).await;
        lease.keep();
    });
    assert!(marked);
}

#[tokio::test]
async fn a_call_that_gets_no_connection_says_what_the_server_said() {
    let pool = pool(impatient());
    pool.source.is_full.store(true, Ordering::SeqCst);
    // One of the two calls waits for its permit.
    let (one, other) = tokio::join!(pool.acquire(), pool.acquire());
    for refused in [one, other] {
        let Err(Error::Unavailable(error)) = refused else {
            panic!("the server is full")
        };
        let reason = error.source().expect("the server's error");
        assert_eq!(reason.to_string(), sqlx::Error::WorkerCrashed.to_string());
    }
}

#[tokio::test]
async fn what_the_server_said_before_a_call_is_not_its_reason() {
    let pool = pool(impatient());
    pool.source.is_full.store(true, Ordering::SeqCst);
    assert!(pool.acquire().await.is_err());
    pool.source.is_full.store(false, Ordering::SeqCst);
    let _lease = mark(&pool).await;
    let Err(Error::Unavailable(error)) = pool.acquire().await else {
        panic!("the only connection is in use")
    };
    assert!(error.source().is_none());
}

#[tokio::test]
async fn a_call_that_is_dropped_while_it_waits_leaves_its_place() {
    let pool = pool(one());
    for waits in [&pool.source.is_full, &pool.source.hangs] {
        waits.store(true, Ordering::SeqCst);
        let before = pool.source.asked.load(Ordering::SeqCst);
        tokio::select! {
            _ = pool.acquire() => panic!("there is no connection"),
            () = pool.source.asked(before + 1) => {}
        }
        waits.store(false, Ordering::SeqCst);
        drop(mark(&pool).await);
    }
}

#[tokio::test]
async fn closing_waits_for_the_call_in_progress_and_keeps_nothing() {
    let pool = pool(one());
    let lease = mark(&pool).await;
    let mut closing = Box::pin(pool.close());
    let closed = timeout(Duration::from_millis(20), &mut closing).await;
    assert!(closed.is_err(), "a call is in progress");
    lease.keep();
    closing.await;
    assert!(pool.idle().is_empty());
    let refused = pool.acquire().await;
    assert!(matches!(refused, Err(Error::Unavailable(_))));
}

#[test]
fn connections_can_be_dropped_after_the_runtime_has_ended() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let pool = runtime.block_on(async {
        let pool = pool(one());
        mark(&pool).await.keep();
        pool
    });
    drop(runtime);
    drop(pool);
}

/// A server on which each connection has its own database.
struct Server {
    asked: AtomicUsize,
    is_full: AtomicBool,
    hangs: AtomicBool,
    suspects: AtomicBool,
}

impl Server {
    /// Waits until this many connections were requested.
    async fn asked(&self, times: usize) {
        while self.asked.load(Ordering::SeqCst) < times {
            yield_now().await;
        }
    }
}

impl Source for Server {
    type Connection = SqliteConnection;

    async fn open(&self) -> Result<SqliteConnection, sqlx::Error> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.is_full.load(Ordering::SeqCst) {
            return Err(sqlx::Error::WorkerCrashed);
        }
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let memory: SqliteConnectOptions = "sqlite::memory:".parse().expect("a URL");
        memory.connect().await
    }

    fn is_suspect(&self, _: Duration) -> bool {
        self.suspects.load(Ordering::SeqCst)
    }
}

fn pool(limits: Limits) -> Pool<Server> {
    let server = Server {
        asked: AtomicUsize::new(0),
        is_full: AtomicBool::new(false),
        hangs: AtomicBool::new(false),
        suspects: AtomicBool::new(false),
    };
    Pool::new(server, limits)
}

fn one() -> Limits {
    Limits {
        size: 1,
        patience: Duration::from_secs(30),
        idle: Duration::MAX,
        age: Duration::MAX,
    }
}

fn impatient() -> Limits {
    Limits {
        patience: Duration::from_millis(20),
        ..one()
    }
}

/// Marks a connection by a table that no other connection has.
async fn mark(pool: &Pool<Server>) -> Lease<'_, Server> {
    let mut lease = pool.acquire().await.expect("a permit is free");
    let marked = sqlx::query("CREATE TABLE mark (id)").execute(&mut *lease);
    marked.await.expect("the connection has its own database");
    lease
}

async fn is_marked(pool: &Pool<Server>) -> bool {
    let mut lease = pool.acquire().await.expect("a permit is free");
    let marked = sqlx::query("SELECT * FROM mark").execute(&mut *lease).await;
    lease.keep();
    marked.is_ok()
}
