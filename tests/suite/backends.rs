//! Each backend, and what it takes to start it.

use std::sync::Arc;

use slack_installs::backend::{Backend, MemoryBackend};

#[cfg(any(
    feature = "dynamodb",
    feature = "postgres",
    feature = "redis",
    feature = "sqlite"
))]
use super::spoil;
use super::{odd, suite, suite_cached};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory() {
    suite("memory", in_memory()).await;
    let backend = MemoryBackend::default();
    odd("memory", &backend, "its own", &|key| {
        backend.spoil(&key);
        Box::pin(std::future::ready(()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_through_a_cache() {
    suite_cached("memory through a cache", in_memory()).await;
}

fn in_memory() -> Arc<dyn Backend> {
    Arc::new(MemoryBackend::default())
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().join("installations.sqlite3");
    let backend = slack_installs::backend::SqliteBackend::open(&path).await;
    let backend = backend.expect("a new file can be made there");
    for way in spoil::SQLITE {
        odd("sqlite", &backend, way, &|key| {
            let path = path.clone();
            Box::pin(async move { spoil::sqlite(&path, &key, way).await })
        })
        .await;
    }
    suite("sqlite", Arc::new(backend)).await;
}

#[cfg(feature = "postgres")]
mod on_postgres {
    use super::*;
    use crate::postgres::{PgBouncer, Postgres};
    use slack_installs::backend::{PostgresBackend, PostgresOptions};

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn postgres() {
        let server = Postgres::start().await;
        let url = server.database("suite").await;
        let backend = open(&url, fast()).await;
        odd_rows("postgres", &*backend, &url).await;
        suite("postgres", backend).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn postgres_through_a_cache() {
        let server = Postgres::start().await;
        let backend = open(&server.database("suite").await, fast()).await;
        suite_cached("postgres through a cache", backend).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn postgres_behind_pgbouncer() {
        let server = Postgres::start().await;
        let direct = server.database("suite").await;
        let pooler = PgBouncer::start(server.port()).await;
        let options = PostgresOptions {
            transaction_pooler: true,
            ..fast()
        };
        let backend = open(&pooler.url("postgres", "suite"), options).await;
        odd_rows("postgres behind pgbouncer", &*backend, &direct).await;
        suite("postgres behind pgbouncer", backend).await;
    }

    async fn odd_rows(name: &str, backend: &dyn Backend, url: &str) {
        for way in spoil::POSTGRES {
            odd(name, backend, way, &|key| {
                let url = url.to_owned();
                Box::pin(async move { spoil::postgres(&url, "public", &key, way).await })
            })
            .await;
        }
    }

    async fn open(url: &str, options: PostgresOptions) -> Arc<dyn Backend> {
        let backend = PostgresBackend::connect_with(url, options).await;
        Arc::new(backend.expect("the server is fine"))
    }

    /// For servers that forget.
    fn fast() -> PostgresOptions {
        PostgresOptions {
            skip_durability_checks: true,
            ..PostgresOptions::default()
        }
    }
}

#[cfg(feature = "redis")]
mod on_redis {
    use super::*;
    use crate::redis_servers::{Cluster, alone, urls};
    use slack_installs::backend::RedisOptions;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn redis() {
        let (backend, server) = alone().await;
        odd_rows("redis", &backend, &urls(server.as_ref())).await;
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
        odd_rows("redis cluster", &*backend, &cluster.urls()).await;
        suite("redis cluster", backend).await;
    }

    async fn odd_rows(name: &str, backend: &dyn Backend, urls: &[String]) {
        for way in spoil::REDIS {
            odd(name, backend, way, &|key| {
                Box::pin(async move { spoil::redis(urls, &key, way).await })
            })
            .await;
        }
    }
}

#[cfg(feature = "dynamodb")]
mod on_dynamodb {
    use super::*;
    use crate::dynamodb::Emulator;
    use slack_installs::backend::DynamoDbBackend;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn dynamodb() {
        let emulator = Emulator::start();
        let (client, table) = (emulator.client(), emulator.table().await);
        let backend = DynamoDbBackend::connect(&client, &table).await;
        let backend = backend.expect("the table was just made");
        for way in spoil::DYNAMODB {
            odd("dynamodb", &backend, way, &|key| {
                let (client, table) = (&client, &table);
                Box::pin(async move { spoil::dynamodb(client, table, &key, way).await })
            })
            .await;
        }
        suite("dynamodb", Arc::new(backend)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn dynamodb_through_a_cache() {
        let emulator = Emulator::start();
        let backend = Arc::new(emulator.backend().await);
        suite_cached("dynamodb through a cache", backend).await;
    }
}
