//! Postgres, directly and through PgBouncer.

use std::sync::Arc;

use slack_installs::backend::{Backend, PostgresBackend, PostgresOptions};

use super::House;
use crate::postgres::{PgBouncer, Postgres};
use crate::{malformed, spoil, suite, suite_cached};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres() {
    let server = Postgres::start().await;
    let url = server.database("suite").await;
    let backend = open(&url, fast()).await;
    malformed_rows("postgres", &*backend, &url).await;
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
    malformed_rows("postgres behind pgbouncer", &*backend, &direct).await;
    suite("postgres behind pgbouncer", backend).await;
}

pub async fn house() -> House {
    let server = Postgres::start().await;
    let backend = open(&server.database("house").await, fast()).await;
    House::new("postgres", backend, server).refusing(&["due/too-late", "metadata/empty"])
}

async fn malformed_rows(name: &str, backend: &dyn Backend, url: &str) {
    for way in spoil::POSTGRES {
        malformed(name, backend, way, &|key| {
            let url = url.to_owned();
            Box::pin(async move { spoil::postgres(&url, "public", &key, way).await })
        })
        .await;
    }
}

async fn open(url: &str, options: PostgresOptions) -> Arc<dyn Backend> {
    let backend = PostgresBackend::connect_with(url, options).await;
    Arc::new(backend.expect("the server is available"))
}

/// Returns options for servers without durability.
fn fast() -> PostgresOptions {
    PostgresOptions {
        skip_durability_checks: true,
        ..PostgresOptions::default()
    }
}
