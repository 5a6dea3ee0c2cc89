use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tokio::task::yield_now;
use tokio::time::pause;

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
    assert!(pool.state().idle.is_empty());
    let refused = pool.acquire().await;
    assert!(matches!(refused, Err(Error::Unavailable(_))));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_gets_no_response_says_so() {
    let pool = pool(one());
    pool.source.hangs.store(true, Ordering::SeqCst);
    // One of the two calls waits for its permit.
    let (one, other) = tokio::join!(pool.acquire(), pool.acquire());
    for failed in [one, other] {
        assert!(matches!(reason(failed), NoConnection::NoResponse));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_the_reason_if_a_later_attempt_gets_no_response() {
    let pool = pool(one());
    pool.source.is_full.store(true, Ordering::SeqCst);
    let (failed, ()) = tokio::join!(pool.acquire(), async {
        pool.source.asked(1).await;
        pool.source.hangs.store(true, Ordering::SeqCst);
        pool.source.is_full.store(false, Ordering::SeqCst);
    });
    assert!(matches!(reason(failed), NoConnection::NoResponse));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_an_earlier_call_is_not_the_reason() {
    let pool = pool(impatient());
    pool.source.is_full.store(true, Ordering::SeqCst);
    assert!(pool.acquire().await.is_err());
    pool.source.hangs.store(true, Ordering::SeqCst);
    pool.source.is_full.store(false, Ordering::SeqCst);
    assert!(matches!(
        reason(pool.acquire().await),
        NoConnection::NoResponse
    ));
}

#[tokio::test]
async fn a_call_that_finds_all_connections_in_use_says_so() {
    let pool = pool(impatient());
    let _lease = mark(&pool).await;
    pause();
    assert!(matches!(reason(pool.acquire().await), NoConnection::Busy));
}

#[tokio::test]
async fn a_connection_that_comes_back_goes_to_the_call_that_waited_longest() {
    let pool = pool(Limits { size: 3, ..one() });
    let lease = mark(&pool).await;
    pause();
    pool.source.hangs.store(true, Ordering::SeqCst);
    let mut first = Box::pin(is_marked(&pool));
    let mut second = Box::pin(is_marked(&pool));
    assert_eq!(now(&mut first).await, None);
    assert_eq!(now(&mut second).await, None);
    lease.keep();
    assert!(now(pool.acquire()).await.is_none(), "a new call is last");
    assert_eq!(now(&mut second).await, None);
    assert!(first.await);
    assert!(second.await);
}

#[tokio::test]
async fn a_connection_that_comes_back_to_a_call_that_is_dropped_is_not_lost() {
    let pool = pool(Limits { size: 2, ..one() });
    let lease = mark(&pool).await;
    pause();
    pool.source.hangs.store(true, Ordering::SeqCst);
    let mut dropped = Box::pin(pool.acquire());
    assert!(now(&mut dropped).await.is_none());
    lease.keep();
    drop(dropped);
    assert!(is_marked(&pool).await);
    assert_eq!(pool.places.available_permits(), 2);
}

#[tokio::test]
async fn an_attempt_completes_for_the_pool_if_its_call_takes_another_connection() {
    let pool = pool(Limits { size: 2, ..one() });
    let lease = mark(&pool).await;
    pool.source.hangs.store(true, Ordering::SeqCst);
    let mut second = Box::pin(pool.acquire());
    assert!(now(&mut second).await.is_none());
    lease.keep();
    let _lease = second.await.expect("a connection came back");
    let mut third = Box::pin(pool.acquire());
    assert!(now(&mut third).await.is_none(), "the attempt has a place");
    pool.source.responds.notify_one();
    third.await.expect("the attempt's connection").keep();
    assert_eq!(pool.source.asked.load(Ordering::SeqCst), 2);
    assert_eq!(pool.state().idle.len(), 1);
}

#[tokio::test]
async fn closing_fails_the_calls_that_wait_and_ends_the_attempts() {
    let pool = pool(Limits { size: 3, ..one() });
    let lease = mark(&pool).await;
    pause();
    pool.source.hangs.store(true, Ordering::SeqCst);
    let mut served = Box::pin(pool.acquire());
    assert!(now(&mut served).await.is_none());
    lease.keep();
    // Its attempt goes on for the pool.
    let lease = served.await.expect("a connection came back");
    let mut connects = Box::pin(pool.acquire());
    let mut waits = Box::pin(pool.acquire());
    assert!(now(&mut connects).await.is_none());
    assert!(now(&mut waits).await.is_none());
    let mut closing = Box::pin(pool.close());
    assert!(now(&mut closing).await.is_none(), "a call is in progress");
    for refused in [waits.await, connects.await, pool.acquire().await] {
        assert!(matches!(reason(refused), NoConnection::Closed));
    }
    // The task that has the attempt runs.
    yield_now().await;
    assert_eq!(pool.places.available_permits(), 2);
    lease.keep();
    closing.await;
    assert!(pool.state().idle.is_empty());
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
    /// A new connection waits until the server `responds`.
    hangs: AtomicBool,
    responds: Notify,
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
            self.responds.notified().await;
        }
        let memory: SqliteConnectOptions = "sqlite::memory:".parse().expect("a URL");
        memory.connect().await
    }

    fn is_suspect(&self, _: Duration) -> bool {
        self.suspects.load(Ordering::SeqCst)
    }
}

fn pool(limits: Limits) -> Arc<Pool<Server>> {
    let server = Server {
        asked: AtomicUsize::new(0),
        is_full: AtomicBool::new(false),
        hangs: AtomicBool::new(false),
        responds: Notify::new(),
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
async fn mark(pool: &Arc<Pool<Server>>) -> Lease<Server> {
    let mut lease = pool.acquire().await.expect("a permit is free");
    let marked = sqlx::query("CREATE TABLE mark (id)").execute(&mut *lease);
    marked.await.expect("the connection has its own database");
    lease
}

async fn is_marked(pool: &Arc<Pool<Server>>) -> bool {
    let mut lease = pool.acquire().await.expect("a permit is free");
    let marked = sqlx::query("SELECT * FROM mark").execute(&mut *lease).await;
    lease.keep();
    marked.is_ok()
}

/// Polls the future once.
async fn now<F: Future>(future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = async {} => None,
    }
}

fn reason(failed: Result<Lease<Server>, Error>) -> NoConnection {
    let Err(Error::Unavailable(error)) = failed else {
        panic!("there is no connection")
    };
    *error.downcast().expect("the pool's error")
}
