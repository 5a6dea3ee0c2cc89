//! Measures what the whole store adds to its database. Compares `EncryptedStore::fetch` (read,
//! open, parse) with the simplest good call of the same driver for the same rows.
//!
//! Run `cargo bench --features sqlite,postgres,redis,testing --bench backends`. Options after `--`:
//!
//! * `--quick`: makes fewer calls, with 1,000 and 5,000 tenants.
//! * `--json`: also prints a line of JSON for each row of the table.
//! * `--only postgres`: measures one backend. May be repeated. `--only memory` shows the cost of
//!   the store alone.
//!
//! All sides run in one process, on the same kind and number of connections. They take turns of
//! some tens of milliseconds, so that other work on the machine affects them alike. They read the
//! same tables, and each call reads a random tenant. SQL has a third side, `held`: the bare call on
//! as many connections, without sqlx's pool.
//!
//! The benchmark starts Postgres and Redis, with the durability that the backends require. To use
//! your own servers, set the variables of the tests (`SLACK_INSTALLS_TEST_POSTGRES_URL`,
//! `SLACK_INSTALLS_TEST_REDIS_URL`).
//!
//! The benchmark asserts no results. `docs/performance.md` has measurements.

#![allow(clippy::unwrap_used, reason = "a failed benchmark has no result")]

use std::sync::Arc;

use slack_installs::ClientId;

#[path = "backends/bare.rs"]
mod bare;
#[path = "backends/databases.rs"]
mod databases;
#[path = "backends/fill.rs"]
mod fill;
#[path = "backends/measure.rs"]
mod measure;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests, which use more of it"
)]
#[path = "../tests/support/postgres.rs"]
mod postgres;
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../tests/redis/servers.rs"]
mod redis_servers;
#[path = "backends/report.rs"]
mod report;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests, which use more of it"
)]
#[path = "../tests/support/server.rs"]
mod server;

use databases::Subject;
use measure::{Effort, measure};

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let only: Vec<_> = arguments
        .windows(2)
        .filter(|pair| pair[0] == "--only")
        .map(|pair| pair[1].as_str())
        .collect();
    let wanted = |backend: &str| only.is_empty() || only.contains(&backend);
    let (effort, tenants) = if has("--quick") {
        (Effort::QUICK, [1_000, 5_000])
    } else {
        (Effort::FULL, [1_000, 100_000])
    };
    let json = has("--json");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        report::head();
        if wanted("memory") {
            let memory = databases::memory(tenants).await;
            compare("memory", &memory, effort, json).await;
        }
        if wanted("sqlite") {
            let sqlite = databases::sqlite(tenants).await;
            compare("sqlite", sqlite.subjects(), effort, json).await;
        }
        if wanted("postgres") {
            let postgres = databases::postgres(tenants).await;
            compare("postgres", postgres.subjects(), effort, json).await;
            postgres.remove().await;
        }
        if wanted("redis") {
            let redis = databases::redis(tenants).await;
            compare("redis", redis.subjects(), effort, json).await;
            redis.remove().await;
        }
    });
}

async fn compare(backend: &str, subjects: &[Arc<Subject>; 2], effort: Effort, json: bool) {
    for subject in subjects {
        subject.check().await;
    }
    for (concurrency, calls) in [(1, effort.calls_alone), (64, effort.calls_at_once)] {
        let measured = measure(subjects, concurrency, calls, effort.rounds).await;
        report::rows(backend, concurrency, subjects, &measured, json);
    }
}

/// Returns the app of all tenants.
fn app() -> ClientId {
    ClientId::new("100000000001.200000000002").unwrap()
}
