//! Lost responses, cut connections, killed servers and damaged rows, on one server.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::support::Db;
use crate::support::installs::{With, in_workspace};
use crate::support::providers::master_key;
use slack_installs::backend::Version;
use slack_installs::store::Error as StoreError;
use slack_installs::{EncryptedStore, InstallationStore, LocalKeyProvider};

/// Opens the backend through a proxy, with a timeout short enough for a test.
async fn open_through(proxy: &Proxy) -> RedisBackend {
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let options = RedisOptions {
        response_timeout: Duration::from_millis(500),
        ..RedisOptions::default()
    };
    RedisBackend::open(&url, options)
        .await
        .expect("a safe server")
}

fn assert_unavailable<T: std::fmt::Debug>(outcome: &Result<T, Error>) {
    assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
}

/// Acknowledged commits are on disk. Each other commit was applied as a whole or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_during_commits_keeps_all_that_it_acknowledged() {
    let mut redis = Redis::start().await;
    let backend: Arc<dyn Backend> = Arc::new(open(&redis).await);
    let history = History::new("app/T1");
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS as u64)
        .map(|nth| {
            let (history, stop) = (Arc::clone(&history), Arc::clone(&stop));
            let backend = Arc::clone(&backend);
            tokio::spawn(async move {
                let mut seed = nth * 1000;
                while !stop.load(Ordering::SeqCst) {
                    seed += 1;
                    history.write(&backend, 1, seed).await;
                }
            })
        })
        .collect();
    for _ in 0..4 {
        let before = history.acknowledged();
        until("commits succeed again", async || {
            history.acknowledged() >= before + 30
        })
        .await;
        redis.kill();
        redis.restart().await;
    }
    let before = history.acknowledged();
    until("commits succeed again", async || {
        history.acknowledged() >= before + 30
    })
    .await;
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.expect("no writer panics");
    }
    let summary = history.check(&backend).await;
    println!("{summary:?}");
    assert!(summary.unknown > 0, "a kill interrupts at least one commit");
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_happened_once_and_is_not_sent_again() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(redis.address()).await;
    let backend = open_through(&proxy).await;
    let (tenant, bot) = (partition("app/T1"), slot("bot"));
    let rows: Vec<_> = (0..3).map(|seed| random_row(&mut Random(seed))).collect();
    backend
        .commit(&tenant, &put(&bot, &rows[0], Expect::Absent))
        .await
        .expect("a first row");
    let before = calls(&redis).await;

    proxy.set(Fault::LoseAnswer(b"EVALSHA"));
    let change = put(&bot, &rows[1], Expect::Version(rows[0].version));
    assert_unavailable(&backend.commit(&tenant, &change).await);
    assert_eq!(proxy.faults(), 1);
    assert_eq!(calls(&redis).await, before + 1, "the commit is sent once");
    assert_eq!(
        read_one(&backend, &tenant, &bot).await.as_ref(),
        Some(&rows[1])
    );
    let change = put(&bot, &rows[2], Expect::Version(rows[1].version));
    backend
        .commit(&tenant, &change)
        .await
        .expect("the next call works");

    proxy.set(Fault::LoseRequest(b"EVALSHA"));
    let change = put(&bot, &rows[0], Expect::Version(rows[2].version));
    assert_unavailable(&backend.commit(&tenant, &change).await);
    assert_eq!(
        calls(&redis).await,
        before + 2,
        "the commit is not sent again"
    );
    assert_eq!(
        read_one(&backend, &tenant, &bot).await.as_ref(),
        Some(&rows[2])
    );
    backend
        .commit(&tenant, &change)
        .await
        .expect("the next call works");
}

/// Returns how often the server ran the script.
pub(crate) async fn calls(redis: &Redis) -> u64 {
    let stats: String = redis.run(&["INFO", "commandstats"]).await;
    let calls = |line: &str| {
        let calls = line
            .strip_prefix("cmdstat_evalsha:calls=")?
            .split(',')
            .next()?;
        calls.parse::<u64>().ok()
    };
    stats.lines().find_map(calls).unwrap_or(0)
}

#[tokio::test]
async fn a_read_whose_answer_is_lost_is_asked_again() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(redis.address()).await;
    let backend = open_through(&proxy).await;
    let (tenant, bot) = (partition("app/T1"), slot("bot"));
    let row = random_row(&mut Random(1));
    backend
        .commit(&tenant, &put(&bot, &row, Expect::Absent))
        .await
        .expect("a first row");
    proxy.set(Fault::LoseAnswer(b"HMGET"));
    assert_eq!(read_one(&backend, &tenant, &bot).await.as_ref(), Some(&row));
    proxy.set(Fault::LoseRequest(b"ZRANGEBYLEX"));
    assert_eq!(
        backend
            .scan(&Scope::Everything, None, 10)
            .await
            .expect("retried")
            .rows
            .len(),
        1
    );
    assert_eq!(proxy.faults(), 2);
}

/// A firewall has forgotten the connection, or the machine has crashed silently.
#[tokio::test]
async fn a_connection_on_which_answers_stop_coming_is_replaced() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(redis.address()).await;
    let backend = open_through(&proxy).await;
    let (tenant, bot) = (partition("app/T1"), slot("bot"));
    let row = random_row(&mut Random(1));
    proxy.stall();
    assert_unavailable(
        &backend
            .commit(&tenant, &put(&bot, &row, Expect::Absent))
            .await,
    );
    assert_eq!(
        read_one(&backend, &tenant, &bot).await,
        None,
        "the commit never reached the server"
    );
    backend
        .commit(&tenant, &put(&bot, &row, Expect::Absent))
        .await
        .expect("the next call works");
    proxy.stall();
    assert_eq!(
        read_one(&backend, &tenant, &bot).await,
        Some(row),
        "the read is tried again"
    );
}

#[tokio::test]
async fn a_killed_connection_costs_no_read() {
    let redis = Redis::start().await;
    let backend = open(&redis).await;
    let (tenant, bot) = (partition("app/T1"), slot("bot"));
    let mut standing = random_row(&mut Random(0));
    backend
        .commit(&tenant, &put(&bot, &standing, Expect::Absent))
        .await
        .expect("a first row");
    for seed in 1..20 {
        let _: u64 = redis
            .run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
            .await;
        assert_eq!(
            read_one(&backend, &tenant, &bot).await.as_ref(),
            Some(&standing)
        );
        let _: u64 = redis
            .run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
            .await;
        let row = random_row(&mut Random(seed));
        let change = put(&bot, &row, Expect::Version(standing.version));
        match backend.commit(&tenant, &change).await {
            Ok(()) => standing = row,
            // The commit may have been sent, so it must not be sent again.
            outcome => {
                assert_unavailable(&outcome);
                standing = read_one(&backend, &tenant, &bot)
                    .await
                    .expect("a row is stored");
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_forgot_the_script_is_told_it_again() {
    let redis = Redis::start().await;
    let backend = open(&redis).await;
    let (tenant, bot) = (partition("app/T1"), slot("bot"));
    let mut expect = Expect::Absent;
    for seed in 0..5 {
        let () = redis.run(&["SCRIPT", "FLUSH"]).await;
        let row = random_row(&mut Random(seed));
        backend
            .commit(&tenant, &put(&bot, &row, expect))
            .await
            .expect("reloaded");
        let refused = backend
            .commit(&tenant, &put(&bot, &row, Expect::Absent))
            .await;
        assert!(matches!(refused, Err(Error::Conflict)));
        expect = Expect::Version(row.version);
    }
}

/// Another client's endless script blocks the server until the script is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_server_is_unavailable_until_its_script_is_killed() {
    let redis = Arc::new(
        Redis::with(&[
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--busy-reply-threshold",
            "20",
        ])
        .await,
    );
    let backend = open(&redis).await;
    let (tenant, bot) = (partition("app/T1"), slot("bot"));
    let rows: Vec<_> = (0..2).map(|seed| random_row(&mut Random(seed))).collect();
    backend
        .commit(&tenant, &put(&bot, &rows[0], Expect::Absent))
        .await
        .expect("a first row");
    let endless = tokio::spawn({
        let redis = Arc::clone(&redis);
        async move {
            redis
                .try_run::<()>(&["EVAL", "while true do end", "0"])
                .await
        }
    });
    until("the server is busy", async || {
        let answer: Result<String, _> = redis.try_run(&["PING"]).await;
        answer.is_err_and(|error| error.code() == Some("BUSY"))
    })
    .await;
    let change = put(&bot, &rows[1], Expect::Version(rows[0].version));
    assert_unavailable(&backend.commit(&tenant, &change).await);
    assert_unavailable(&backend.read(&tenant, std::slice::from_ref(&bot)).await);
    let () = redis.run(&["SCRIPT", "KILL"]).await;
    endless.await.expect("no panic").expect_err("killed");
    assert_eq!(
        read_one(&backend, &tenant, &bot).await.as_ref(),
        Some(&rows[0])
    );
    backend
        .commit(&tenant, &change)
        .await
        .expect("the next call works");
}

/// Redis can kill the script only before its first write. So it has written nothing, or it
/// finishes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_somebody_tries_to_kill_is_whole() {
    let redis = Arc::new(
        Redis::with(&[
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--busy-reply-threshold",
            "1",
        ])
        .await,
    );
    let options = RedisOptions {
        response_timeout: Duration::from_secs(60),
        ..RedisOptions::default()
    };
    let backend = RedisBackend::open(&redis.url(), options)
        .await
        .expect("a safe server");
    let (tenant, bot) = (partition("app/T1"), slot("bot"));
    let row = random_row(&mut Random(1));
    backend
        .commit(&tenant, &put(&bot, &row, Expect::Absent))
        .await
        .expect("a first row");
    // More rows than any tenant has, so that clearing them takes long enough for `SCRIPT KILL` to
    // meet the script.
    let keys: Vec<String> = redis.run(&["KEYS", "*:rows:app/T1"]).await;
    let names = keys[0].replace(":rows:app/T1", ":names");
    let plant = "for at = 1, 100000 do \
                 redis.call('HSET', KEYS[1], 'user/' .. at, '') \
                 redis.call('ZADD', KEYS[2], 0, 'app/T1 user/' .. at) end";
    let () = redis.run(&["EVAL", plant, "2", &keys[0], &names]).await;

    let done = Arc::new(AtomicBool::new(false));
    let killer = tokio::spawn({
        let (redis, done) = (Arc::clone(&redis), Arc::clone(&done));
        async move {
            let mut met = 0;
            while !done.load(Ordering::SeqCst) {
                met += match redis.try_run::<()>(&["SCRIPT", "KILL"]).await {
                    Ok(()) => 1,
                    Err(error) => u32::from(error.code() == Some("UNKILLABLE")),
                };
            }
            met
        }
    });
    let outcome = backend.commit(&tenant, &[Change::Clear]).await;
    done.store(true, Ordering::SeqCst);
    let met = killer.await.expect("no panic");
    println!("{outcome:?}, met {met} times");
    assert!(met > 0, "`SCRIPT KILL` met the running script");
    let count = async || -> (u64, u64) {
        (
            redis.run(&["HLEN", &keys[0]]).await,
            redis.run(&["ZCARD", &names]).await,
        )
    };
    match outcome {
        Ok(()) => assert_eq!(count().await, (0, 0)),
        outcome => {
            assert_unavailable(&outcome);
            assert_eq!(count().await, (100_001, 100_001));
        }
    }
    backend
        .commit(&tenant, &[Change::Clear])
        .await
        .expect("the next call works");
    assert_eq!(count().await, (0, 0));
}

#[tokio::test]
async fn a_full_server_takes_no_row_and_gives_up_every_one() {
    let redis = Redis::start().await;
    let backend = open(&redis).await;
    let (tenant, bot) = (partition("app/T1"), slot("bot"));
    let rows: Vec<_> = (0..2).map(|seed| random_row(&mut Random(seed))).collect();
    backend
        .commit(&tenant, &put(&bot, &rows[0], Expect::Absent))
        .await
        .expect("a first row");
    let () = redis.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let mut changes = put(&slot("other"), &rows[1], Expect::Absent).to_vec();
    changes.push(Change::Delete {
        slot: bot.clone(),
        only: None,
    });
    assert_unavailable(&backend.commit(&tenant, &changes).await);
    assert_eq!(
        read_one(&backend, &tenant, &bot).await.as_ref(),
        Some(&rows[0])
    );
    assert_eq!(read_one(&backend, &tenant, &slot("other")).await, None);
    // A clear must work without free memory, so that an uninstallation can delete the data.
    backend
        .commit(&tenant, &[Change::Clear])
        .await
        .expect("it frees memory");
    assert_eq!(read_one(&backend, &tenant, &bot).await, None);
}

#[tokio::test]
async fn a_master_made_a_replica_is_neither_written_nor_read() {
    let (master, other) = (Redis::start().await, Redis::start().await);
    let backend = open(&master).await;
    let (tenant, bot) = (partition("app/T1"), slot("bot"));
    let row = random_row(&mut Random(1));
    backend
        .commit(&tenant, &put(&bot, &row, Expect::Absent))
        .await
        .expect("a first row");
    let () = master
        .run(&["REPLICAOF", "127.0.0.1", &other.port.to_string()])
        .await;
    let change = put(&bot, &random_row(&mut Random(2)), Expect::Any);
    assert_unavailable(&backend.commit(&tenant, &change).await);
    assert_unavailable(&backend.read(&tenant, std::slice::from_ref(&bot)).await);
    let () = master.run(&["REPLICAOF", "NO", "ONE"]).await;
    backend
        .commit(&tenant, &change)
        .await
        .expect("the next call works");
}

#[tokio::test]
async fn what_is_not_ours_is_malformed_and_nothing_is_written() {
    let redis = Redis::start().await;
    let backend = open(&redis).await;
    let (tenant, bot) = (partition("app/T1"), slot("bot"));
    let row = random_row(&mut Random(1));
    let malformed = |outcome: Result<(), Error>| {
        assert!(matches!(outcome, Err(Error::Malformed(_))), "{outcome:?}");
    };
    backend
        .commit(&tenant, &put(&bot, &row, Expect::Absent))
        .await
        .expect("a first row");
    let key = redis
        .run::<Vec<String>>(&["KEYS", "*:rows:app/T1"])
        .await
        .remove(0);

    for garbage in [
        "",
        "garbage",
        "\u{1}",
        "garbage that is longer than the header of any row",
    ] {
        let _: u8 = redis.run(&["HSET", &key, "bot", garbage]).await;
        malformed(
            backend
                .read(&tenant, std::slice::from_ref(&bot))
                .await
                .map(drop),
        );
        let page = scanned(&backend, 10).await.expect("a scan goes on");
        assert_eq!(
            (page.rows.len(), page.malformed),
            (0, vec!["app/T1 bot".into()])
        );
        let expect = Expect::Version(Version::mint());
        malformed(backend.commit(&tenant, &put(&bot, &row, expect)).await);
        malformed(
            backend
                .commit(&tenant, &put(&bot, &row, Expect::Absent))
                .await,
        );
    }
    backend
        .commit(&tenant, &put(&bot, &row, Expect::Any))
        .await
        .expect("it may be overwritten");

    // Each of the three keys in turn holds another type. The commit must then write none of the
    // others.
    for suffix in [":rows:app/T1", ":names", ":due"] {
        let key = key.replace(":rows:app/T1", suffix);
        let () = redis.run(&["FLUSHALL"]).await;
        let () = redis.run(&["SET", &key, "something else"]).await;
        malformed(backend.commit(&tenant, &put(&bot, &row, Expect::Any)).await);
        let keys: Vec<String> = redis.run(&["KEYS", "*"]).await;
        assert_eq!(keys, [key]);
    }
}

#[tokio::test]
async fn two_apps_with_prefixes_of_their_own_share_a_server() {
    let redis = Redis::start().await;
    let open = async |prefix: &str| {
        let options = RedisOptions {
            prefix: prefix.into(),
            ..RedisOptions::default()
        };
        RedisBackend::open(&redis.url(), options)
            .await
            .expect("a safe server")
    };
    let (one, other) = (open("one").await, open("other").await);
    let (tenant, bot) = (partition("app/T1"), slot("bot"));
    let row = random_row(&mut Random(1));
    one.commit(&tenant, &put(&bot, &row, Expect::Absent))
        .await
        .expect("a first row");
    assert_eq!(read_one(&other, &tenant, &bot).await, None);
    other
        .commit(&tenant, &[Change::Clear])
        .await
        .expect("rows may be cleared");
    assert!(
        scanned(&other, 10)
            .await
            .expect("the backend is available")
            .rows
            .is_empty()
    );
    assert_eq!(read_one(&one, &tenant, &bot).await, Some(row));
}

#[tokio::test]
async fn a_commit_that_too_few_replicas_have_is_unavailable() {
    let (master, mut replica, backend) = with_a_replica().await;
    let (tenant, bot) = (partition("app/T1"), slot("bot"));
    let rows: Vec<_> = (0..2).map(|seed| random_row(&mut Random(seed))).collect();
    replica.kill();
    assert_unavailable(
        &backend
            .commit(&tenant, &put(&bot, &rows[0], Expect::Absent))
            .await,
    );
    assert_eq!(
        read_one(&backend, &tenant, &bot).await.as_ref(),
        Some(&rows[0]),
        "the outcome is unknown"
    );

    replica.restart().await;
    counted(&master, &replica).await;
    let change = put(&bot, &rows[1], Expect::Version(rows[0].version));
    backend
        .commit(&tenant, &change)
        .await
        .expect("the replica has it");
    let conflict = backend
        .commit(&tenant, &put(&bot, &rows[0], Expect::Absent))
        .await;
    assert!(matches!(conflict, Err(Error::Conflict)));
    // The replica already has what the acknowledged commit wrote.
    let keys: Vec<String> = replica.run(&["KEYS", "*:rows:app/T1"]).await;
    let value: Vec<u8> = replica.run(&["HGET", &keys[0], "bot"]).await;
    assert_eq!(value[1..17], *rows[1].version.as_bytes());
}

/// Starts a master and a replica, and returns them with a backend whose commits wait for the
/// replica.
async fn with_a_replica() -> (Redis, Redis, RedisBackend) {
    let master = Redis::start().await;
    let replica_of = format!("127.0.0.1 {}", master.port);
    let settings = [
        "--appendonly",
        "yes",
        "--repl-diskless-sync-delay",
        "0",
        "--replicaof",
        &replica_of,
    ];
    let replica = Redis::with(&settings).await;
    up_to_date(&replica).await;
    let options = RedisOptions {
        await_replicas: 1,
        await_timeout: Duration::from_millis(200),
        ..RedisOptions::default()
    };
    let backend = RedisBackend::open(&master.url(), options)
        .await
        .expect("a safe server");
    (master, replica, backend)
}

/// Waits until the replica is up to date and the master counts it. The master counts it from its
/// first acknowledgement.
async fn counted(master: &Redis, replica: &Redis) {
    up_to_date(replica).await;
    until("the master counts the replica", async || {
        master.run::<u8>(&["WAIT", "1", "100"]).await >= 1
    })
    .await;
}

async fn up_to_date(replica: &Redis) {
    until("the replica is up to date", async || {
        let link: String = replica.run(&["INFO", "replication"]).await;
        link.contains("master_link_status:up")
    })
    .await;
}

#[tokio::test]
async fn scan_goes_on_across_all_shards_page_by_page() {
    let redis = Redis::start().await;
    let backend = open(&redis).await;
    let row = random_row(&mut Random(1));
    for tenant in 0..300 {
        let tenant = partition(&format!("app/T{tenant}"));
        backend
            .commit(&tenant, &put(&slot("bot"), &row, Expect::Absent))
            .await
            .expect("new");
    }
    for limit in [1, 7, 100, usize::MAX] {
        let (mut seen, mut from) = (std::collections::BTreeSet::new(), None);
        loop {
            let page = backend
                .scan(&Scope::Everything, from, limit)
                .await
                .expect("the backend is available");
            assert!(page.rows.len() <= limit);
            for (key, _) in page.rows {
                assert!(seen.insert(key.clone()), "{key:?} twice");
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 300);
    }
    let index: Vec<String> = redis.run(&["KEYS", "*:names"]).await;
    assert!(
        index.len() > 100,
        "tenants spread over the shards: {}",
        index.len()
    );
}

/// The row is on the master under the writer's version. That alone is no success.
#[tokio::test]
async fn what_too_few_replicas_have_is_not_stored_until_they_have_it() {
    let (master, mut replica, backend) = with_a_replica().await;
    let db = Db::new(Arc::new(backend));
    let store = db.store().await;
    replica.kill();
    let installation = || in_workspace("T1").with_bot("xoxb-1");
    let stored = store.store(&installation()).await;
    assert!(
        matches!(stored, Err(StoreError::Unavailable(_))),
        "{stored:?}"
    );
    replica.restart().await;
    counted(&master, &replica).await;
    store.store(&installation()).await.expect("replicated");
}

#[tokio::test]
async fn the_first_data_key_is_not_used_until_enough_replicas_have_it() {
    let (master, mut replica, backend) = with_a_replica().await;
    let db = Db::new(Arc::new(backend));
    replica.kill();
    let provider = || LocalKeyProvider::from(master_key());
    let open = || EncryptedStore::open(Arc::clone(&db.backend), provider(), db.app.clone());
    let opened = open().await;
    assert!(opened.is_err(), "{opened:?}");
    replica.restart().await;
    counted(&master, &replica).await;
    open().await.expect("replicated");
}

/// Otherwise each caller would try to connect by itself, one after another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_of_a_server_that_is_gone_share_its_silence() {
    let redis = Redis::start().await;
    let proxy = Proxy::to(redis.address()).await;
    let options = RedisOptions {
        connect_timeout: Duration::from_millis(500),
        response_timeout: Duration::from_millis(500),
        ..RedisOptions::default()
    };
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let backend = RedisBackend::open(&url, options).await;
    let backend = Arc::new(backend.expect("a safe server"));
    let before = proxy.connections();
    proxy.stall_all();
    let calls: Vec<_> = (0..100)
        .map(|nth| {
            let backend = Arc::clone(&backend);
            let (tenant, bot) = (partition(&format!("app/T{nth}")), slot("bot"));
            tokio::spawn(async move { backend.read(&tenant, &[bot]).await })
        })
        .collect();
    for call in calls {
        assert_unavailable(&call.await.expect("no panic"));
    }
    let tries = proxy.connections() - before;
    assert!(
        (1..10).contains(&tries),
        "{tries} connections for 100 calls"
    );
}

/// Only reads are made, so no commit discovers the change of role.
#[tokio::test]
async fn a_master_made_a_replica_is_read_no_more_before_long() {
    let (master, other) = (Redis::start().await, Redis::start().await);
    let backend = open(&master).await;
    let (tenant, bot) = (partition("app/T1"), slot("bot"));
    let row = random_row(&mut Random(1));
    backend
        .commit(&tenant, &put(&bot, &row, Expect::Absent))
        .await
        .expect("a first row");
    let () = master
        .run(&["REPLICAOF", "127.0.0.1", &other.port.to_string()])
        .await;
    until("a read is refused", async || {
        let read = backend.read(&tenant, std::slice::from_ref(&bot)).await;
        matches!(read, Err(Error::Unavailable(_)))
    })
    .await;
}

/// Creates three tenants in different shards, whose bots are due.
async fn three_due(redis: &Redis) -> (RedisBackend, Vec<(Partition, String)>) {
    let backend = open(redis).await;
    let mut tenants = Vec::new();
    for name in ["app/T1", "app/T2", "app/T3"] {
        let due = Row {
            due: refresh_at(std::time::UNIX_EPOCH + Duration::from_secs(tenants.len() as u64)),
            ..random_row(&mut Random(1))
        };
        let tenant = partition(name);
        backend
            .commit(&tenant, &put(&slot("bot"), &due, Expect::Absent))
            .await
            .expect("new rows");
        let pattern = format!("*:rows:{name}");
        let key = redis
            .run::<Vec<String>>(&["KEYS", &pattern])
            .await
            .remove(0);
        let tag = key.split_once(":rows:").expect("the pattern matched").0;
        tenants.push((tenant, tag.to_owned()));
    }
    assert!(tenants[0].1 != tenants[1].1 && tenants[1].1 != tenants[2].1);
    (backend, tenants)
}

async fn due_partitions(backend: &RedisBackend, limit: usize) -> Vec<String> {
    let now = std::time::SystemTime::now();
    let due = backend.due(&refreshes(), now, None, limit).await;
    let due = due.expect("the backend is available").rows.into_iter();
    due.map(|(key, _)| key.partition.to_string()).collect()
}

#[tokio::test]
async fn a_shard_that_fails_keeps_no_other_from_being_due() {
    let redis = Redis::start().await;
    let (backend, tenants) = three_due(&redis).await;
    // Has the effect of an unavailable master of one shard, but on a single server.
    let () = redis
        .run(&["SET", &format!("{}:due", tenants[1].1), "something else"])
        .await;
    assert_eq!(due_partitions(&backend, 10).await, ["app/T1", "app/T3"]);
    let () = redis
        .run(&["REPLICAOF", "127.0.0.1", &server::free_port().to_string()])
        .await;
    until("no shard answers", async || {
        let due = backend
            .due(&refreshes(), std::time::SystemTime::now(), None, 10)
            .await;
        matches!(due, Err(Error::Unavailable(_)))
    })
    .await;
}

#[tokio::test]
async fn malformed_rows_are_skipped_and_named() {
    let redis = Redis::start().await;
    let (backend, tenants) = three_due(&redis).await;
    let key = format!("{}:rows:app/T2", tenants[1].1);
    let _: u8 = redis.run(&["HSET", &key, "bot", "garbage"]).await;
    let due = format!("{}:due", tenants[2].1);
    let _: u8 = redis.run(&["ZADD", &due, "0", "nonsense"]).await;
    let member = "1 app 000000000000 two words here";
    let _: u8 = redis.run(&["ZADD", &due, "0", member]).await;
    let names = format!("{}:names", tenants[2].1);
    let _: u8 = redis.run(&["ZADD", &names, "0", "nonsense"]).await;

    let now = std::time::SystemTime::now();
    for limit in [1, 2, 10] {
        let (mut rows, mut malformed, mut from) = (Vec::new(), Vec::new(), None);
        loop {
            let page = backend.due(&refreshes(), now, from, limit).await;
            let page = page.expect("the backend is available");
            assert!(page.rows.len() + page.malformed.len() <= limit);
            rows.extend(page.rows.iter().map(|(key, _)| key.partition.to_string()));
            malformed.extend(page.malformed);
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        assert_eq!(rows, ["app/T1", "app/T3"]);
        malformed.sort_unstable();
        assert_eq!(malformed, [member, "app/T2 bot"]);
    }
    let mut page = scanned(&backend, 10).await.expect("a scan goes on");
    page.malformed.sort_unstable();
    assert_eq!(page.rows.len(), 2);
    assert_eq!(page.malformed, ["app/T2 bot", "nonsense"]);
}

/// A server that evicts removes the rows of a tenant and keeps their names in the indexes.
#[tokio::test]
async fn names_of_rows_that_are_gone_do_not_fill_what_is_due() {
    let redis = Redis::start().await;
    let (backend, tenants) = three_due(&redis).await;
    let _: u8 = redis
        .run(&["DEL", &format!("{}:rows:app/T1", tenants[0].1)])
        .await;
    assert_eq!(due_partitions(&backend, 1).await, [""; 0], "a hint");
    assert_eq!(due_partitions(&backend, 1).await, ["app/T2"]);
    for index in ["due", "names"] {
        let left: u8 = redis
            .run(&["ZCARD", &format!("{}:{index}", tenants[0].1)])
            .await;
        assert_eq!(left, 0, "{index}");
    }
}
