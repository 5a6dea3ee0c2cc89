//! What the whole store adds to its database: `EncryptedStore::fetch` (read, open, parse) beside
//! the plainest good call of the same driver for the same rows.
//!
//! `cargo bench --features sqlite,postgres,redis,testing --bench backends`, and after `--`:
//!
//! * `--quick`: few calls, and 1,000 beside 5,000 tenants;
//! * `--json`: a line of JSON for each row of the table, too;
//! * `--only postgres`: one backend, or `memory`, which shows what the store alone costs. May be
//!   repeated.
//!
//! All sides run in one process, on connections of one kind and number, and by turns of some tens
//! of milliseconds, so that whatever else the machine does meets them alike. They have all their
//! tenants in the same tables, and ask for one at random at a time. For SQL there is a third
//! side, `held`: the bare call on as many connections without sqlx's pool. Postgres and Redis are
//! started here, as durable as the backend wants them, or named by the variables that the tests
//! take (`SLACK_INSTALLS_TEST_POSTGRES_URL`, `SLACK_INSTALLS_TEST_REDIS_URL`).
//!
//! Nothing is asserted. `docs/performance.md` has what was measured.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no result")]

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
    reason = "shared with the tests, which use more"
)]
#[path = "../tests/support/postgres.rs"]
mod postgres;
#[allow(dead_code, reason = "shared with the tests, which use more")]
#[path = "../tests/redis/servers.rs"]
mod redis_servers;
#[path = "backends/report.rs"]
mod report;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests, which use more"
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
    let (effort, tenants) = match has("--quick") {
        true => (Effort::QUICK, [1_000, 5_000]),
        false => (Effort::FULL, [1_000, 100_000]),
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

/// The app whose tenants they all are.
fn app() -> ClientId {
    ClientId::new("100000000001.200000000002").unwrap()
}
