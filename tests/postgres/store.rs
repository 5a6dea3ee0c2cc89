//! `EncryptedStore` over Postgres.

use std::sync::Arc;

use slack_installs::backend::Backend;

use super::servers::postgres::{PgBouncer, Postgres};
use super::{fast, open, pooled};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_behaves_on_postgres() {
    let server = Postgres::start().await;
    let url = server.database("store").await;
    let backend: Arc<dyn Backend> = Arc::new(open(&url, fast()).await);
    store_behaviour!(run "Postgres", Arc::clone(&backend));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_behaves_behind_pgbouncer() {
    let server = Postgres::start().await;
    server.database("store").await;
    let pooler = PgBouncer::start(server.port()).await;
    let url = pooler.url("postgres", "store");
    let backend: Arc<dyn Backend> = Arc::new(open(&url, pooled()).await);
    store_behaviour!(run "Postgres behind PgBouncer", Arc::clone(&backend));
}
