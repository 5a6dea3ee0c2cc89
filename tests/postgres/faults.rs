//! Faults during a call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use slack_installs::backend::{
    Backend, Change, Error, Expect, Partition, PostgresBackend, PostgresOptions, Scope, Version,
};
use tokio::sync::Semaphore;

use super::servers::history::join_all;
use super::servers::postgres::{self, PgBouncer, Postgres, execute};
use super::servers::proxy::{Cut, Proxy};
use super::servers::queues::{refreshes, scanned};
use super::{
    PATIENCE, PAUSE, fast, hold, open, partition, pooled, put, read, row, slot, until, waiting,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_leaves_each_commit_done_or_not_done() {
    let mut server = Postgres::start().await;
    let url = server.database("killed").await;
    let pooler = PgBouncer::start(server.port()).await;
    let direct = open(&url, fast()).await;
    // While the server is down, PgBouncer keeps its clients waiting.
    let options = PostgresOptions {
        statement_timeout: Duration::from_secs(2),
        ..pooled()
    };
    let behind = open(&pooler.url("postgres", "killed"), options).await;
    let backends: [Arc<PostgresBackend>; 2] = [Arc::new(direct), Arc::new(behind)];
    for round in 0..2 {
        let commits = Arc::new(Semaphore::new(0));
        let writers: Vec<_> = (0..8)
            .map(|nth| {
                let backend = Arc::clone(&backends[nth % 2]);
                let partition = partition(&format!("app/round{round}-writer{nth}"));
                tokio::spawn(write_until_lost(backend, partition, Arc::clone(&commits)))
            })
            .collect();
        let _ = commits.acquire_many(200).await.expect("it stays open");
        server.kill();
        let mut written = Vec::new();
        for writer in writers {
            written.push(writer.await.expect("only typed errors"));
        }
        server.restart().await;
        for (nth, (partition, known, asked)) in written.into_iter().enumerate() {
            let found = pair(&*backends[nth % 2], &partition).await;
            assert!(
                found == known || found == asked,
                "{found:?}: {known:?}, {asked:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_reads_work_at_once_and_then_everything() {
    let mut server = Postgres::start().await;
    let url = server.database("restarted").await;
    let backend = open(&url, fast()).await;
    put(&backend, &row("{}"), Expect::Any)
        .await
        .expect("the server responds");
    // The reads fill the pool with ten connections.
    let slots = [slot("bot")];
    let partition = partition("app/T1");
    let reads = (0..64).map(|_| backend.read(&partition, &slots));
    for read in join_all(reads).await {
        read.expect("the server responds");
    }
    server.kill();
    server.restart().await;
    read(&backend)
        .await
        .expect("a read is tried again")
        .expect("the row is stored");
    for _ in 0..20 {
        put(&backend, &row("{}"), Expect::Any)
            .await
            .expect("idle connections are tested");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_unavailable_and_done() {
    let server = Postgres::start().await;
    server.database("cut").await;
    let pooler = PgBouncer::start(server.port()).await;
    // Without a pooler, one statement is the whole commit. Behind a pooler, the commit is a
    // separate statement.
    let ways = [
        (server.port(), fast(), "marked-row"),
        (pooler.port(), pooled(), "COMMIT\0"),
    ];
    for (upstream, options, text) in ways {
        let proxy = Proxy::start(upstream).await;
        let backend = open(&postgres::url(proxy.port(), "postgres", "cut"), options).await;
        for (cut, done) in [(Cut::After(text), true), (Cut::Before(text), false)] {
            let standing = read(&backend).await.expect("the server responds");
            let row = row("{\"name\":\"marked-row\"}");
            proxy.cut(cut.clone());
            let outcome = put(&backend, &row, Expect::Any).await;
            assert!(
                matches!(outcome, Err(Error::Unavailable(_))),
                "{cut:?}: {outcome:?}"
            );
            assert!(proxy.has_cut(), "{cut:?}");
            let expected = if done { Some(row) } else { standing };
            assert_eq!(
                read(&backend).await.expect("the next call works"),
                expected,
                "{cut:?}"
            );
        }
        put(&backend, &row("{}"), Expect::Any)
            .await
            .expect("the next commit works");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_whose_connection_is_cut_is_answered_all_the_same() {
    let server = Postgres::start().await;
    server.database("cut").await;
    let proxy = Proxy::start(server.port()).await;
    let backend = open(&postgres::url(proxy.port(), "postgres", "cut"), fast()).await;
    let row = row("{}");
    put(&backend, &row, Expect::Any)
        .await
        .expect("the server responds");
    for cut in [Cut::Before("app/T1"), Cut::After("app/T1")] {
        proxy.cut(cut);
        assert_eq!(read(&backend).await.expect("retried"), Some(row.clone()));
        assert!(proxy.has_cut());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_a_lock_or_a_statement_ends_in_the_servers_error() {
    let server = Postgres::start().await;
    let url = server.database("waits").await;
    let pooler = PgBouncer::start(server.port()).await;
    let behind = pooler.url("postgres", "waits");
    let mut holder = postgres::connection(&url).await;
    for (url, transaction_pooler) in [(&url, false), (&behind, true)] {
        let patient = PostgresOptions {
            transaction_pooler,
            ..patient()
        };
        let lock = PostgresOptions {
            lock_timeout: SHORT,
            ..patient.clone()
        };
        let statement = PostgresOptions {
            statement_timeout: SHORT,
            ..patient
        };
        for (options, code) in [(lock, "55P03"), (statement, "57014")] {
            let backend = open(url, options).await;
            let held = hold(&mut holder).await;
            let outcome = put(&backend, &row("{}"), Expect::Any).await;
            let Err(Error::Unavailable(source)) = outcome else {
                panic!("{code}: {outcome:?}")
            };
            let source: &sqlx::Error = source.downcast_ref().expect("the driver's error");
            let found = source.as_database_error().and_then(|error| error.code());
            assert_eq!(found.as_deref(), Some(code));
            assert_eq!(read(&backend).await.expect("the next call works"), None);
            held.rollback().await.expect("the server responds");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_a_connection_ends_in_a_transient_error() {
    let server = Postgres::start().await;
    let url = server.database("waits").await;
    let options = PostgresOptions {
        acquire_timeout: SHORT,
        ..patient()
    };
    let backend = Arc::new(open(&url, options).await);
    put(&*backend, &row("{}"), Expect::Absent)
        .await
        .expect("the server responds");
    let mut holder = postgres::connection(&url).await;
    let held = hold(&mut holder).await;
    let commit = tokio::spawn({
        let backend = Arc::clone(&backend);
        async move { put(&*backend, &row("{}"), Expect::Any).await }
    });
    waiting(&url).await;
    let outcome = read(&*backend).await;
    assert!(
        matches!(&outcome, Err(error) if error.is_transient()),
        "{outcome:?}"
    );
    held.rollback().await.expect("the server responds");
    commit.await.expect("no panic").expect("its turn came");
    let found = read(&*backend).await.expect("the pool has room again");
    assert!(found.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_commit_gives_its_connection_back_and_is_done_or_not_done() {
    let server = Postgres::start().await;
    let direct = server.database("dropped").await;
    let pooler = PgBouncer::start(server.port()).await;
    let behind = pooler.url("postgres", "dropped");
    for (url, options) in [(&direct, fast()), (&behind, pooled())] {
        let backend = Arc::new(
            open(
                url,
                PostgresOptions {
                    pool_size: 1,
                    ..options
                },
            )
            .await,
        );
        let mut holder = postgres::connection(&direct).await;
        for _ in 0..3 {
            let before = read(&*backend).await.expect("the server responds");
            let held = hold(&mut holder).await;
            let row = row("{}");
            let commit = tokio::spawn({
                let (backend, row) = (Arc::clone(&backend), row.clone());
                async move { put(&*backend, &row, Expect::Any).await }
            });
            waiting(&direct).await;
            commit.abort();
            assert!(commit.await.expect_err("aborted").is_cancelled());
            held.rollback().await.expect("the server responds");
            quiet(&direct).await;
            let after = read(&*backend).await.expect("the pool has room again");
            assert!(after == before || after == Some(row), "{after:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_hangs_is_given_up_and_so_is_its_place_in_the_pool() {
    let server = Postgres::start().await;
    server.database("hung").await;
    let pooler = PgBouncer::start(server.port()).await;
    for (upstream, options) in [(server.port(), fast()), (pooler.port(), pooled())] {
        let proxy = Proxy::start(upstream).await;
        let options = PostgresOptions {
            pool_size: 1,
            statement_timeout: SHORT,
            ..options
        };
        let url = postgres::url(proxy.port(), "postgres", "hung");
        let backend = Arc::new(open(&url, options).await);
        put(&*backend, &row("{}"), Expect::Any)
            .await
            .expect("the server responds");

        proxy.cut(Cut::Hang("app/T1"));
        let outcome = put(&*backend, &row("{}"), Expect::Any).await;
        assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
        assert!(read(&*backend).await.expect("another connection").is_some());

        proxy.cut(Cut::Hang("app/T1"));
        let commit = tokio::spawn({
            let backend = Arc::clone(&backend);
            async move { put(&*backend, &row("{}"), Expect::Any).await }
        });
        while !proxy.has_cut() {
            tokio::time::sleep(PAUSE).await;
        }
        commit.abort();
        assert!(commit.await.expect_err("aborted").is_cancelled());
        assert!(read(&*backend).await.expect("another connection").is_some());
    }
}

/// Returns options with one connection and long timeouts.
fn patient() -> PostgresOptions {
    let long = Duration::from_secs(60);
    PostgresOptions {
        acquire_timeout: long,
        lock_timeout: long,
        statement_timeout: long,
        pool_size: 1,
        ..fast()
    }
}

/// Writes two rows in each commit until a commit gets no response. Returns the partition, the last
/// acknowledged versions, and the versions of the last attempt.
async fn write_until_lost(
    backend: Arc<PostgresBackend>,
    partition: Partition,
    commits: Arc<Semaphore>,
) -> (Partition, [Option<Version>; 2], [Option<Version>; 2]) {
    let mut known = None;
    loop {
        let row = row("{}");
        let expect = known.map_or(Expect::Absent, Expect::Version);
        let changes = ["a", "b"].map(|name| Change::Put {
            slot: slot(name),
            row: row.clone(),
            expect,
        });
        match backend.commit(&partition, &changes).await {
            Ok(()) => known = Some(row.version),
            Err(Error::Unavailable(_)) => return (partition, [known; 2], [Some(row.version); 2]),
            Err(error) => panic!("no other client writes here: {error:?}"),
        }
        commits.add_permits(1);
    }
}

/// Returns the versions in the two slots once the server responds again.
async fn pair(backend: &dyn Backend, partition: &Partition) -> [Option<Version>; 2] {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match backend.read(partition, &["a", "b"].map(slot)).await {
            Ok(rows) => {
                let versions: Vec<_> = rows
                    .into_iter()
                    .map(|row| row.map(|row| row.version))
                    .collect();
                return versions.try_into().expect("an entry for each slot");
            }
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
    }
}

/// Waits until no commit is in progress.
async fn quiet(url: &str) {
    let quiet = "SELECT count(*) = 0 FROM pg_stat_activity
                 WHERE query LIKE 'SELECT slack_commit_1%' AND state <> 'idle'";
    until(url, quiet).await;
}

/// A firewall drops connections in this way. Testing each idle connection would take too long.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_were_dropped_without_a_word_cost_one_read_and_not_one_each() {
    let server = Postgres::start().await;
    server.database("silent").await;
    let proxy = Proxy::start(server.port()).await;
    let options = PostgresOptions {
        statement_timeout: SHORT,
        ..fast()
    };
    let url = postgres::url(proxy.port(), "postgres", "silent");
    let backend = open(&url, options).await;
    put(&backend, &row("{}"), Expect::Any)
        .await
        .expect("the server responds");
    // The reads fill the pool with ten connections.
    let (slots, partition) = ([slot("bot")], partition("app/T1"));
    for _ in 0..2 {
        let reads = (0..64).map(|_| backend.read(&partition, &slots));
        for read in join_all(reads).await {
            read.expect("the server responds")[0]
                .as_ref()
                .expect("the row is stored");
        }
        proxy.hang_all();
        let lost = read(&backend).await;
        assert!(matches!(lost, Err(Error::Unavailable(_))), "{lost:?}");
        read(&backend)
            .await
            .expect("a new connection")
            .expect("the row is stored");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_rows_are_skipped_and_named() {
    let server = Postgres::start().await;
    let url = server.database("malformed").await;
    let backend = open(&url, fast()).await;
    put(&backend, &row("{}"), Expect::Any)
        .await
        .expect("the server responds");
    execute(
        &url,
        "ALTER TABLE slack_rows DROP CONSTRAINT slack_rows_version_check;
         ALTER TABLE slack_rows DROP CONSTRAINT slack_rows_check;
         INSERT INTO slack_rows VALUES
           ('app/T1', 'a', '\\x00', '{}', '', 'refresh', 0),
           ('app/T1', 'two words', '0123456789abcdef', '{}', '', 'refresh', 0),
           ('app/T1', 'lane', '0123456789abcdef', '{}', '', 'unknown', 0),
           ('app/T1', 'time', '0123456789abcdef', '{}', '', 'refresh', NULL)",
    )
    .await;
    let now = std::time::SystemTime::now();
    for limit in [1, 2, 10] {
        let mut from = None;
        let (mut rows, mut malformed) = (Vec::new(), Vec::new());
        loop {
            let page = backend.due(&refreshes(), now, from, limit).await;
            let page = page.expect("the server responds");
            rows.extend(page.rows.into_iter().map(|(key, _)| key.slot.to_string()));
            malformed.extend(page.malformed);
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        assert_eq!(rows, ["bot"]);
        assert_eq!(malformed, ["app/T1 a", "app/T1 two words"]);
    }
    let page = scanned(&backend, 10).await.expect("a scan goes on");
    assert_eq!(page.rows.len(), 1);
    let malformed = ["app/T1 a", "app/T1 lane", "app/T1 time", "app/T1 two words"];
    assert_eq!(page.malformed, malformed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_has_a_thousand_rows_at_most() {
    let server = Postgres::start().await;
    let url = server.database("pages").await;
    let backend = open(&url, fast()).await;
    put(&backend, &row("{}"), Expect::Any)
        .await
        .expect("the server responds");
    execute(
        &url,
        "INSERT INTO slack_rows
         SELECT partition, 'user/U' || nth, version, metadata, sealed, lane, due_at
         FROM slack_rows, generate_series(1, 1000) AS nth",
    )
    .await;
    let page = scanned(&backend, usize::MAX).await.expect("a page");
    assert_eq!(page.rows.len(), 1000);
    let page = backend.scan(&Scope::Everything, page.next, usize::MAX);
    let page = page.await.expect("a page");
    assert_eq!((page.rows.len(), page.next), (1, None));
}

const SHORT: Duration = Duration::from_millis(500);
