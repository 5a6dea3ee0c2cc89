//! Measures what the audit log costs: on Postgres in time, and on DynamoDB in write units.
//!
//! Run `cargo bench --features postgres,testing --bench audit`. With `-- --quick`, it takes seconds.
//!
//! * *Default mode*: 1,000 reads a second of random tenants, of 5,000. Turns with and without the
//!   log follow each other. The number of gaps is that of all turns with the log, and includes the
//!   start, when each tenant's key is made. Then 64 callers read as fast as they can.
//! * *Strict mode*: 64 callers read as fast as they can. Compares the median of a read with that of
//!   the smallest commit that Postgres makes durable: one row without an index.
//! * *Write units*: computed from the rows of the log, as DynamoDB counts the size of an item.
//!
//! The benchmark starts a Postgres with its default settings, which are durable. To use your own, set
//! `SLACK_INSTALLS_TEST_POSTGRES_URL`. It asserts no results. `docs/audit.md` has measurements.

#![allow(clippy::unwrap_used, reason = "a failed benchmark has no result")]

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use slack_installs::audit::{Audit, AuditOptions, SigningKey};
use slack_installs::backend::{PostgresBackend, PostgresOptions};
use slack_installs::{ClientId, EncryptedStore, InstallationStore as _};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

#[allow(
    dead_code,
    reason = "shared with another benchmark, which uses more of it"
)]
#[path = "backends/fill.rs"]
mod fill;
#[path = "audit/log.rs"]
mod log;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests, which use more of it"
)]
#[path = "../tests/support/postgres.rs"]
mod postgres;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests, which use more of it"
)]
#[path = "../tests/support/server.rs"]
mod server;
#[path = "audit/turns.rs"]
mod turns;
#[path = "audit/units.rs"]
mod units;

use turns::{Turn, median, percentile};

type Store = EncryptedStore<PostgresBackend>;

/// How much is measured.
struct Effort {
    tenants: usize,
    rounds: u64,
    paced: Duration,
    reads: usize,
    commits: usize,
}

const FULL: Effort = Effort {
    tenants: 5000,
    rounds: 7,
    paced: Duration::from_secs(15),
    reads: 10_000,
    commits: 300,
};

const QUICK: Effort = Effort {
    tenants: 500,
    rounds: 2,
    paced: Duration::from_secs(2),
    reads: 2000,
    commits: 50,
};

fn main() {
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let effort = if is_quick { QUICK } else { FULL };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        units::print().await;
        let given = std::env::var("SLACK_INSTALLS_TEST_POSTGRES_URL").ok();
        let server = match &given {
            Some(_) => None,
            None => Some(postgres::Postgres::start_with(&[]).await),
        };
        let url = match (&server, given) {
            (Some(server), _) => server.database("audit").await,
            (None, url) => url.unwrap(),
        };
        let connections = PostgresOptions::default().pool_size;
        let pool = PgPoolOptions::new().max_connections(connections);
        let pool = pool.test_before_acquire(false).connect(&url).await;
        let pool = pool.unwrap();
        clean(&pool).await;
        let options = PostgresOptions {
            schema: SCHEMA.to_owned(),
            skip_durability_checks: server.is_none(),
            allow_plaintext: server.is_none(),
            ..PostgresOptions::default()
        };
        PostgresBackend::migrate(&url, &options).await.unwrap();
        let backend = PostgresBackend::connect_with(&url, options).await.unwrap();
        let store = EncryptedStore::open(backend, fill::keys(), app()).await;
        let store = store.unwrap();
        filled(&store, effort.tenants).await;
        by_default(&store, &effort).await;
        strictly(&store, &pool, &effort).await;
        clean(&pool).await;
    });
}

async fn clean(pool: &PgPool) {
    for statement in [
        "DROP SCHEMA IF EXISTS slack_installs_bench_audit CASCADE",
        "DROP TABLE IF EXISTS slack_installs_bench_commit",
        "CREATE TABLE slack_installs_bench_commit (nothing int)",
    ] {
        sqlx::query(statement).execute(pool).await.unwrap();
    }
}

async fn filled(store: &Store, tenants: usize) {
    let installs = (0..tenants).map(async |tenant| {
        let stored = store.store(&fill::installation(tenant)).await;
        stored.unwrap();
    });
    stream::iter(installs)
        .buffer_unordered(16)
        .collect::<()>()
        .await;
}

fn options() -> AuditOptions {
    AuditOptions::default().signed_by(SigningKey::from_bytes(&[7; 32], 1))
}

async fn opened(store: &Store, options: AuditOptions) -> (Store, Audit) {
    let audit = Audit::open(Arc::new(store.clone()), options).await.unwrap();
    (store.clone().with_witness(audit.clone()), audit)
}

/// Compares reads with and without the log, in turns.
async fn by_default(store: &Store, effort: &Effort) {
    let tenants = effort.tenants;
    let pace = Duration::from_millis(1);
    let (logged, audit) = opened(store, options()).await;
    let run = audit.current_run().unwrap();
    let mut sides = [(store, Vec::new()), (&logged, Vec::new())];
    for round in 0..effort.rounds {
        for (store, turns) in &mut sides {
            turns.push(turns::paced(*store, tenants, pace, effort.paced, round).await);
        }
        sides.reverse();
    }
    if effort.rounds % 2 == 1 {
        sides.reverse();
    }
    assert!(audit.close().await, "the log was written within 10 s");
    println!("\ndefault mode, {tenants} tenants, 1,000 reads a second:");
    compared(&sides[0].1, &sides[1].1);
    let counted = log::counted(store, run).await;
    println!(
        "  {} records of {} acts; lost in gaps: {}",
        counted.records, counted.acts, counted.lost
    );

    let (logged, audit) = opened(store, options()).await;
    let run = audit.current_run().unwrap();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..effort.rounds {
        without.push(turns::at_once(store, tenants, 64, effort.reads, round).await);
        with.push(turns::at_once(&logged, tenants, 64, effort.reads, round).await);
    }
    audit.close().await;
    println!("default mode, 64 callers as fast as they can:");
    compared(&without, &with);
    let counted = log::counted(store, run).await;
    println!("  lost in gaps: {}", counted.lost);
}

fn compared(without: &[Turn], with: &[Turn]) {
    let figures = |name: &str, turns: &[Turn]| {
        let rate = median(turns.iter().map(Turn::per_second).collect());
        let [p50, p99] = [50, 99].map(|percent| percentile(turns, percent) * 1e3);
        println!("  {name:12} {rate:8.0} reads/s   p50 {p50:6.2} ms   p99 {p99:6.2} ms");
        rate
    };
    let (without, with) = (figures("without", without), figures("with", with));
    println!("  throughput with the log: {:.1} %", 100.0 * with / without);
}

/// Compares a read in strict mode with an empty commit.
async fn strictly(store: &Store, pool: &PgPool, effort: &Effort) {
    let (logged, audit) = opened(store, options().strict()).await;
    let tenants = effort.tenants;
    let mut sides =
        ["1 commit", "64 commits", "64 without", "64 strict"].map(|it| (it, Vec::new()));
    // The keys of the tenants.
    turns::at_once(&logged, tenants, 64, 4 * effort.reads, 0).await;
    for round in 1..=effort.rounds {
        let reads = |store| turns::at_once(store, tenants, 64, effort.reads, round);
        sides[0]
            .1
            .push(turns::commits(pool, 1, effort.commits).await);
        sides[1]
            .1
            .push(turns::commits(pool, 64, 10 * effort.commits).await);
        sides[2].1.push(reads(store).await);
        sides[3].1.push(reads(&logged).await);
    }
    audit.close().await;
    println!("\nstrict mode, empty commits and reads:");
    let mut p50s = Vec::new();
    for (name, turns) in &sides {
        let [p50, p99] = [50, 99].map(|percent| percentile(turns, percent) * 1e3);
        let rate = median(turns.iter().map(Turn::per_second).collect());
        println!("  {name:12} {rate:8.0} /s   p50 {p50:6.2} ms   p99 {p99:6.2} ms");
        p50s.push(p50);
    }
    for nth in [0, 1] {
        let (bound, name) = (2.0 * p50s[nth] + 2.0, sides[nth].0);
        let part = 100.0 * p50s[3] / bound;
        println!("  2 x p50 of {name} + 2 ms: {bound:.2} ms; strict mode: {part:.0} % of it");
    }
}

const SCHEMA: &str = "slack_installs_bench_audit";

/// Returns the app of all tenants.
fn app() -> ClientId {
    ClientId::new("100000000001.200000000002").unwrap()
}
