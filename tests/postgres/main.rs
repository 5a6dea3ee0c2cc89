//! Postgres, on servers that the tests start.

use std::time::{Duration, Instant, UNIX_EPOCH};

use slack_installs::backend::{
    Backend, Change, ConnectError, Error, Expect, Metadata, Partition, PostgresBackend,
    PostgresOptions, Row, Slot,
};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row as _, Transaction};

use servers::history;
use servers::postgres::{self, Postgres, execute};
use servers::queues::{refresh_at, refreshes};

mod by_url;
mod faults;
mod guide;
mod lookups;
mod pool;
mod refusals;
mod round_trips;
mod suite;
#[macro_use]
#[path = "../support/mod.rs"]
mod support;
mod wall;

#[allow(dead_code, unreachable_pub)]
#[path = "../support"]
mod servers {
    pub mod history;
    pub mod postgres;
    pub mod proxy;
    pub mod queues;
    pub mod server;
    pub mod spoil;
}

/// Creates a database with row-level security for the role `app`, and returns the owner's URL.
async fn walled(server: &Postgres) -> String {
    let superuser = server.database("walled").await;
    execute(
        &superuser,
        "CREATE ROLE tables_owner LOGIN; CREATE ROLE app LOGIN;
         ALTER DATABASE walled OWNER TO tables_owner",
    )
    .await;
    let owner = server.url("tables_owner", "walled");
    let options = fast();
    PostgresBackend::migrate(&owner, &options)
        .await
        .expect("migrated");
    for _ in 0..2 {
        execute(&owner, &options.row_level_security_sql("app")).await;
    }
    owner
}

/// Takes the advisory lock that serialises the commits of the partition.
async fn hold(connection: &mut PgConnection) -> Transaction<'_, sqlx::Postgres> {
    let mut held = connection.begin().await.expect("the server responds");
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended('app/T1', 1397508430))";
    sqlx::raw_sql(lock)
        .execute(&mut *held)
        .await
        .expect("the lock is free");
    held
}

/// Waits until a session waits for a lock.
async fn waiting(url: &str) {
    until(url, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted").await;
}

/// Polls until the condition holds.
async fn until(url: &str, condition: &str) {
    let deadline = Instant::now() + PATIENCE;
    let mut connection = postgres::connection(url).await;
    loop {
        let query = sqlx::raw_sql(AssertSqlSafe(condition.to_owned()));
        let row = query.fetch_one(&mut connection).await;
        if row.expect("a valid query").get(0) {
            return;
        }
        assert!(Instant::now() < deadline, "{condition}");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn open(url: &str, options: PostgresOptions) -> PostgresBackend {
    PostgresBackend::connect_with(url, options)
        .await
        .expect("a safe server")
}

async fn refusal(url: &str) -> ConnectError {
    PostgresBackend::connect_with(url, fast())
        .await
        .expect_err("it must be refused")
}

/// Returns options for a server that may lose commits in a crash.
fn fast() -> PostgresOptions {
    PostgresOptions {
        skip_durability_checks: true,
        ..PostgresOptions::default()
    }
}

fn pooled() -> PostgresOptions {
    PostgresOptions {
        transaction_pooler: true,
        ..fast()
    }
}

async fn put(backend: &dyn Backend, row: &Row, expect: Expect) -> Result<(), Error> {
    let put = Change::Put {
        slot: slot("bot"),
        row: row.clone(),
        expect,
    };
    backend.commit(&partition("app/T1"), &[put]).await
}

async fn read(backend: &dyn Backend) -> Result<Option<Row>, Error> {
    let rows = backend.read(&partition("app/T1"), &[slot("bot")]).await?;
    Ok(rows.into_iter().next().expect("an entry for the slot"))
}

fn change(name: &str, metadata: &str) -> Change {
    Change::Put {
        slot: slot(name),
        row: row(metadata),
        expect: Expect::Any,
    }
}

fn row(metadata: &str) -> Row {
    Row {
        metadata: Metadata::new(metadata),
        due: refresh_at(UNIX_EPOCH),
        ..history::row()
    }
}

fn partition(name: &str) -> Partition {
    Partition::new(name).expect("a name")
}

fn slot(name: &str) -> Slot {
    Slot::new(name).expect("a name")
}

/// The pause between two polls.
const PAUSE: Duration = Duration::from_millis(5);

/// How long to wait, on a busy machine, for an event that must happen.
const PATIENCE: Duration = Duration::from_secs(30);
