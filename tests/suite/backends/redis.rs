//! Redis, as a single server and as a cluster.

use std::sync::Arc;

use slack_installs::backend::{Backend, RedisOptions};

use super::House;
use crate::redis_servers::{Cluster, alone, urls};
use crate::{malformed, spoil, suite, suite_cached};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis() {
    let (backend, server) = alone().await;
    malformed_rows("redis", &backend, &urls(server.as_ref())).await;
    suite("redis", Arc::new(backend)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_through_a_cache() {
    let (backend, _server) = alone().await;
    suite_cached("redis through a cache", Arc::new(backend)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_cluster() {
    let cluster = Cluster::start().await;
    let backend = Arc::new(cluster.open(RedisOptions::default()).await);
    malformed_rows("redis cluster", &*backend, &cluster.urls()).await;
    suite("redis cluster", backend).await;
}

pub async fn houses() -> [House; 2] {
    let (backend, server) = alone().await;
    let cluster = Cluster::start().await;
    let clustered = cluster.open(RedisOptions::default()).await;
    [
        House::new("redis", backend, server),
        House::new("redis cluster", clustered, cluster),
    ]
}

async fn malformed_rows(name: &str, backend: &dyn Backend, urls: &[String]) {
    for way in spoil::REDIS {
        malformed(name, backend, way, &|key| {
            Box::pin(async move { spoil::redis(urls, &key, way).await })
        })
        .await;
    }
}
