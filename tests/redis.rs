//! `RedisBackend` on real servers.

use std::sync::Arc;
use std::time::Duration;

use slack_installs::backend::{
    Backend, Change, ConnectErrorKind as Kind, Error, Expect, Key, Partition, RedisBackend,
    RedisOptions, Row, Scope, Slot,
};
use slack_installs::conformance;
use slack_installs::testing::{Faults, Flaky};

use history::{History, Random, random_row, slot};
use proxy::{Fault, Proxy};
use queues::{refresh_at, refreshes, scanned};
use servers::{Redis, until};

#[path = "redis/by_url.rs"]
mod by_url;
#[path = "redis/cluster.rs"]
mod cluster;
#[path = "redis/faults.rs"]
mod faults;
#[path = "redis/history.rs"]
mod history;
#[path = "redis/opening.rs"]
mod opening;
#[path = "redis/proxy.rs"]
mod proxy;
#[allow(dead_code, unreachable_pub)]
#[path = "support/queues.rs"]
mod queues;
#[path = "redis/sentinel.rs"]
mod sentinel;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests of other servers"
)]
#[path = "support/server.rs"]
mod server;
#[allow(dead_code, unreachable_pub)]
#[path = "support/spoil.rs"]
mod spoil;
#[macro_use]
mod support;
#[path = "redis/servers.rs"]
mod servers;

conformance!(redis_that_loses_answers, spoil_row);

async fn redis_that_loses_answers() -> (Flaky<RedisBackend>, Option<Redis>) {
    let (backend, redis) = servers::alone().await;
    (Flaky::new(backend, Faults::default()), redis)
}

async fn spoil_row(_: &Flaky<RedisBackend>, server: &Option<Redis>, key: Key) {
    let urls = servers::urls(server.as_ref());
    spoil::redis(&urls, &key, spoil::REDIS[0]).await;
}

async fn open(redis: &Redis) -> RedisBackend {
    RedisBackend::open(&redis.url(), RedisOptions::default())
        .await
        .expect("a safe server")
}

fn partition(name: &str) -> Partition {
    Partition::new(name).expect("a plain name")
}

fn put(slot: &Slot, row: &Row, expect: Expect) -> [Change; 1] {
    [Change::Put {
        slot: slot.clone(),
        row: row.clone(),
        expect,
    }]
}

async fn read_one(backend: &dyn Backend, partition: &Partition, slot: &Slot) -> Option<Row> {
    let mut rows = backend
        .read(partition, std::slice::from_ref(slot))
        .await
        .expect("the backend is available");
    rows.remove(0)
}

/// Runs several writers on one history at the same time, and returns when all are done.
async fn write_at_once(
    history: &Arc<History>,
    backends: &[Arc<dyn Backend>],
    commits: usize,
    seed: u64,
) {
    let writers: Vec<_> = (0..WRITERS)
        .map(|nth| {
            let history = Arc::clone(history);
            let backend = Arc::clone(&backends[nth % backends.len()]);
            let seed = Random(seed + nth as u64).next();
            tokio::spawn(async move { history.write(&backend, commits, seed).await })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no writer panics");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_histories_of_two_processes_are_linear() {
    let redis = Redis::start().await;
    let backends: [Arc<dyn Backend>; 2] =
        [Arc::new(open(&redis).await), Arc::new(open(&redis).await)];
    for seed in 0..5 {
        let history = History::new(&format!("app/T{seed}"));
        write_at_once(&history, &backends, 40, seed * 1000).await;
        let summary = history.check(&backends[0]).await;
        println!("seed {seed}: {summary:?}");
        assert!(summary.acknowledged > 0 && summary.conflicts > 0 && summary.reads > 300);
        assert_eq!(summary.unknown, 0);
    }
}

const WRITERS: usize = 8;
