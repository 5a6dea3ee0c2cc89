//! `EncryptedStore` over Postgres.

use std::sync::Arc;

use slack_installs::backend::Backend;

use super::servers::postgres::{PgBouncer, Postgres};
use super::{fast, open, pooled};

mod direct {
    store_behaviour!(super::direct, all_pass);
}

mod behind_pgbouncer {
    store_behaviour!(super::behind_pgbouncer, all_pass);
}

async fn direct() -> (Arc<dyn Backend>, Postgres) {
    let server = Postgres::start().await;
    let url = server.database("store").await;
    (Arc::new(open(&url, fast()).await), server)
}

async fn behind_pgbouncer() -> (Arc<dyn Backend>, (Postgres, PgBouncer)) {
    let server = Postgres::start().await;
    server.database("store").await;
    let pooler = PgBouncer::start(server.port()).await;
    let url = pooler.url("postgres", "store");
    (Arc::new(open(&url, pooled()).await), (server, pooler))
}
