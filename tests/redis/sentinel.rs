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
    // Its last commit waits for the replica, and so for all that came before it.
    let before = history.acknowledged();
    history.write(&safe, 1, 77).await;
    assert_eq!(history.acknowledged(), before + 1);

    watched.master.kill();
    let (tenant, other) = (partition("app/T2"), slot("bot"));
    let row = random_row(&mut Random(7));
    until("commits succeed at the new master", async || {
        plain
            .commit(&tenant, &put(&other, &row, Expect::Any))
            .await
            .is_ok()
    })
    .await;
    let role: Vec<redis::Value> = watched.replica.run(&["ROLE"]).await;
    assert_eq!(role[0], redis::Value::BulkString(b"master".to_vec()));
    assert_eq!(read_one(&plain, &tenant, &other).await, Some(row.clone()));

    // The old master comes back, still thinking that it is one, and is made a replica.
    watched.master.restart().await;
    until(
        "the old master is a replica that is up to date",
        async || {
            let link: Result<String, _> = watched.master.try_run(&["INFO", "replication"]).await;
            link.is_ok_and(|link| link.contains("master_link_status:up"))
        },
    )
    .await;
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
    assert!(
        matches!(refused, RedisOpenError::Unreachable { .. }),
        "{refused:?}"
    );
}
