//! Each backend, and what it takes to start it.

use std::sync::Arc;

use slack_installs::backend::{Backend, MemoryBackend};

use super::{suite, suite_cached};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory() {
    suite("memory", in_memory()).await;
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
    let backend = slack_installs::backend::SqliteBackend::open(path).await;
    let backend = backend.expect("a new file can be made there");
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
        let backend = open(&server.database("suite").await, fast()).await;
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
        server.database("suite").await;
        let pooler = PgBouncer::start(server.port()).await;
        let options = PostgresOptions {
            transaction_pooler: true,
            ..fast()
        };
        let backend = open(&pooler.url("postgres", "suite"), options).await;
        suite("postgres behind pgbouncer", backend).await;
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
    use crate::redis_servers::{Cluster, alone};
    use slack_installs::backend::RedisOptions;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn redis() {
        let (backend, _server) = alone().await;
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
        suite("redis cluster", backend).await;
    }
}

#[cfg(feature = "dynamodb")]
mod on_dynamodb {
    use super::*;
    use crate::dynamodb::Emulator;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn dynamodb() {
        let emulator = Emulator::start();
        let backend = Arc::new(emulator.backend().await);
        suite("dynamodb", backend).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn dynamodb_through_a_cache() {
        let emulator = Emulator::start();
        let backend = Arc::new(emulator.backend().await);
        suite_cached("dynamodb through a cache", backend).await;
    }
}
