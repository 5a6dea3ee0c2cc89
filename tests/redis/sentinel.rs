//! A master behind three sentinels dies, and its replica takes over.

use super::*;
use servers::{MASTER, Watched};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_sentinel_promotes_is_found() {
    let mut watched = Watched::start().await;
    let urls = watched.urls();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let url = format!("redis://{MASTER}");
    let waiting = RedisOptions {
        await_replicas: 1,
        ..RedisOptions::default()
    };
    let safe = RedisBackend::open_sentinel(&urls, &url, waiting)
        .await
        .expect("a safe master");
    let plain = RedisBackend::open_sentinel(&urls, &url, RedisOptions::default()).await;
    let plain: Arc<dyn Backend> = Arc::new(plain.expect("a safe master"));
    let safe: Arc<dyn Backend> = Arc::new(safe);
    let history = History::new("app/T1");
    write_at_once(&history, &[Arc::clone(&safe), Arc::clone(&plain)], 5, 1).await;
    // The last commit waits for the replica, and so do all commits before it.
    let before = history.acknowledged();
    history.write(&safe, 1, 77).await;
    assert_eq!(history.acknowledged(), before + 1);

    watched.master.kill();
    watched.fail_over().await;
    let (tenant, other) = (partition("app/T2"), slot("bot"));
    let row = random_row(&mut Random(7));
    until("commits succeed at the new master", async || {
        plain
            .commit(&tenant, &put(&other, &row, Expect::Any))
            .await
            .is_ok()
    })
    .await;
    assert_eq!(read_one(&plain, &tenant, &other).await, Some(row.clone()));

    // The old master restarts and still acts as a master. The backend must not write to it.
    watched.master.restart().await;
    assert_eq!(watched.master.role().await.as_deref(), Some("master"));
    let before = watched.master.keys().await;
    for _ in 0..20 {
        let row = random_row(&mut Random(8));
        let put = put(&slot("user/U1"), &row, Expect::Any);
        plain.commit(&tenant, &put).await.expect("committed");
        assert_eq!(read_one(&plain, &tenant, &slot("user/U1")).await, Some(row));
    }
    assert_eq!(watched.master.keys().await, before);
    // Sentinel would also make it a replica, but only after eight seconds in which all servers
    // respond.
    let port = watched.replica.port.to_string();
    let () = watched.master.run(&["REPLICAOF", "127.0.0.1", &port]).await;
    let change = put(&other, &row, Expect::Any);
    until("commits reach the old master by replication", async || {
        safe.commit(&tenant, &change).await.is_ok()
    })
    .await;
    write_at_once(&history, &[safe, Arc::clone(&plain)], 5, 1000).await;
    println!("{:?}", history.check(&plain).await);
}

#[tokio::test]
async fn a_master_that_no_sentinel_knows_is_not_found() {
    let watched = Watched::start().await;
    let urls = watched.urls();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let options = RedisOptions::default();
    let refused = RedisBackend::open_sentinel(&urls, "redis://another", options).await;
    let refused = refused.expect_err("no such master");
    assert_eq!(refused.kind(), Kind::Unavailable, "{refused:?}");
}
