//! The databases: each with two numbers of tenants in it, and both ways to them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt as _};
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use slack_installs::backend::{
    Backend, Change, Expect, Key, PostgresBackend, PostgresOptions, RedisBackend, RedisOptions,
    Row, SqliteBackend,
};
use slack_installs::{EncryptedStore, InstallationStore as _};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use tempfile::TempDir;

use super::bare::{self, Held, Side};
use super::postgres::Postgres;
use super::redis_servers::Redis;
use super::{app, fill};

/// So many tenants, and both ways to them.
pub(crate) struct Subject {
    pub(crate) tenants: usize,
    /// The first is the bare one, the last the whole.
    pub(crate) sides: Vec<(&'static str, Box<dyn Side>)>,
}

impl Subject {
    async fn new<B: Backend>(
        tenants: usize,
        backend: B,
        mut sides: Vec<(&'static str, Box<dyn Side>)>,
    ) -> Arc<Self> {
        let store = EncryptedStore::open(backend, fill::keys(), app())
            .await
            .unwrap();
        sides.push(("whole", Box::new(Whole(store))));
        Arc::new(Self { tenants, sides })
    }

    /// Every side finds the last tenant.
    pub(crate) async fn check(&self) {
        for (name, side) in &self.sides {
            let found = side.get(self.tenants - 1).await;
            match *name {
                "whole" => assert_eq!(found, fill::token(self.tenants - 1).len()),
                _ => assert!(found > 0),
            }
        }
    }
}

struct Whole<B>(EncryptedStore<B>);

#[async_trait]
impl<B: Backend> Side for Whole<B> {
    async fn get(&self, tenant: usize) -> usize {
        let fetched = self.0.fetch(&fill::key(tenant), None).await.unwrap();
        let bot = fetched.unwrap().bot.unwrap();
        bot.grant.access_token.expose().len()
    }
}

/// Two maps.
pub(crate) async fn memory(tenants: [usize; 2]) -> [Arc<Subject>; 2] {
    let mut subjects = Vec::new();
    for tenants in tenants {
        let backend = fill::memory(tenants).await;
        let bare = bare::Memory(Arc::clone(&backend));
        let sides: Vec<(_, Box<dyn Side>)> = vec![("bare", Box::new(bare))];
        subjects.push(Subject::new(tenants, backend, sides).await);
    }
    subjects.try_into().ok().unwrap()
}

/// Two files.
pub(crate) struct SqliteFiles {
    _directory: TempDir,
    subjects: [Arc<Subject>; 2],
}

impl SqliteFiles {
    pub(crate) fn subjects(&self) -> &[Arc<Subject>; 2] {
        &self.subjects
    }
}

pub(crate) async fn sqlite(tenants: [usize; 2]) -> SqliteFiles {
    let directory = tempfile::tempdir().unwrap();
    let mut subjects = Vec::new();
    for tenants in tenants {
        let path = directory.path().join(format!("{tenants}.sqlite3"));
        // Makes the table.
        SqliteBackend::open(&path)
            .await
            .unwrap()
            .close()
            .await
            .unwrap();
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .disable_statement_logging();
        copy_to_sqlite(
            &mut options.connect().await.unwrap(),
            fill::rows(tenants).await,
        )
        .await;
        let pool = SqlitePoolOptions::new()
            .max_connections(SQLITE_READERS)
            .test_before_acquire(false)
            .connect_with(options.clone().pragma("query_only", "ON"))
            .await
            .unwrap();
        let held = Held::open(&options, SQLITE_READERS).await;
        let backend = SqliteBackend::open(&path).await.unwrap();
        let sides: Vec<(_, Box<dyn Side>)> = vec![
            ("bare", Box::new(bare::Sqlite(pool))),
            ("held", Box::new(bare::SqliteHeld(held))),
        ];
        subjects.push(Subject::new(tenants, backend, sides).await);
    }
    SqliteFiles {
        _directory: directory,
        subjects: subjects.try_into().ok().unwrap(),
    }
}

async fn copy_to_sqlite(connection: &mut SqliteConnection, rows: Vec<(Key, Row)>) {
    let mut transaction = connection.begin().await.unwrap();
    for (key, row) in rows {
        let query = sqlx::query("INSERT INTO slack_rows VALUES (?1, ?2, ?3, ?4, ?5, NULL, NULL)")
            .bind(key.partition.as_str())
            .bind(key.slot.as_str())
            .bind(row.version.as_bytes().as_slice())
            .bind(row.metadata.as_str())
            .bind(row.sealed.as_bytes());
        query.execute(&mut *transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();
}

/// Two schemas of a database.
pub(crate) struct PostgresSchemas {
    _server: Option<Postgres>,
    connect: PgConnectOptions,
    subjects: [Arc<Subject>; 2],
}

impl PostgresSchemas {
    pub(crate) fn subjects(&self) -> &[Arc<Subject>; 2] {
        &self.subjects
    }

    pub(crate) async fn remove(&self) {
        let mut connection = self.connect.connect().await.unwrap();
        for subject in &self.subjects {
            drop_schema(&mut connection, &schema(subject.tenants)).await;
        }
    }
}

pub(crate) async fn postgres(tenants: [usize; 2]) -> PostgresSchemas {
    let given = std::env::var("SLACK_INSTALLS_TEST_POSTGRES_URL").ok();
    let server = match &given {
        Some(_) => None,
        // No setting but Postgres's own: fsync, full_page_writes and synchronous_commit are on.
        None => Some(Postgres::start_with(&[]).await),
    };
    let url = match (&server, given) {
        (Some(server), _) => server.database("bench").await,
        (None, url) => url.unwrap(),
    };
    let connect: PgConnectOptions = url.parse().unwrap();
    let connect = connect.disable_statement_logging();
    let mut subjects = Vec::new();
    for tenants in tenants {
        let options = PostgresOptions {
            schema: schema(tenants),
            // A server given by URL is somebody's who knows what it is good for.
            skip_durability_checks: server.is_none(),
            allow_plaintext: server.is_none(),
            ..PostgresOptions::default()
        };
        let in_schema = connect.clone().options([("search_path", schema(tenants))]);
        let mut connection = in_schema.connect().await.unwrap();
        drop_schema(&mut connection, &schema(tenants)).await;
        PostgresBackend::migrate(&url, &options).await.unwrap();
        copy_to_postgres(&mut connection, &fill::rows(tenants).await).await;
        let pool = PgPoolOptions::new()
            .max_connections(options.pool_size)
            .test_before_acquire(false)
            .connect_with(in_schema.clone())
            .await
            .unwrap();
        let held = Held::open(&in_schema, options.pool_size).await;
        let backend = PostgresBackend::connect_with(&url, options).await.unwrap();
        let sides: Vec<(_, Box<dyn Side>)> = vec![
            ("bare", Box::new(bare::Postgres(pool))),
            ("held", Box::new(bare::PostgresHeld(held))),
        ];
        subjects.push(Subject::new(tenants, backend, sides).await);
    }
    PostgresSchemas {
        _server: server,
        connect,
        subjects: subjects.try_into().ok().unwrap(),
    }
}

async fn copy_to_postgres(connection: &mut PgConnection, rows: &[(Key, Row)]) {
    for rows in rows.chunks(1000) {
        let query = sqlx::query(
            "INSERT INTO slack_rows SELECT partition, slot, version, metadata::json, sealed, NULL \
             FROM UNNEST($1::text[], $2::text[], $3::bytea[], $4::text[], $5::bytea[]) \
             AS row (partition, slot, version, metadata, sealed)",
        );
        let column = |column: fn(&(Key, Row)) -> &str| rows.iter().map(column).collect::<Vec<_>>();
        let bytes = |column: fn(&(Key, Row)) -> &[u8]| rows.iter().map(column).collect::<Vec<_>>();
        let query = query
            .bind(column(|(key, _)| key.partition.as_str()))
            .bind(column(|(key, _)| key.slot.as_str()))
            .bind(bytes(|(_, row)| row.version.as_bytes()))
            .bind(column(|(_, row)| row.metadata.as_str()))
            .bind(bytes(|(_, row)| row.sealed.as_bytes()));
        query.execute(&mut *connection).await.unwrap();
    }
    // What autovacuum would otherwise do in the middle of the measurement.
    connection
        .execute("VACUUM ANALYZE slack_rows")
        .await
        .unwrap();
    connection.execute("CHECKPOINT").await.unwrap();
}

async fn drop_schema(connection: &mut PgConnection, schema: &str) {
    let statement = format!("DROP SCHEMA IF EXISTS {schema} CASCADE");
    connection.execute(AssertSqlSafe(statement)).await.unwrap();
}

fn schema(tenants: usize) -> String {
    format!("slack_installs_bench_{tenants}")
}

/// Two prefixes of a server.
pub(crate) struct RedisPrefixes {
    _server: Option<Redis>,
    connection: MultiplexedConnection,
    subjects: [Arc<Subject>; 2],
}

impl RedisPrefixes {
    pub(crate) fn subjects(&self) -> &[Arc<Subject>; 2] {
        &self.subjects
    }

    pub(crate) async fn remove(&self) {
        for subject in &self.subjects {
            remove_keys(&self.connection, &prefix(subject.tenants)).await;
        }
    }
}

pub(crate) async fn redis(tenants: [usize; 2]) -> RedisPrefixes {
    let given = std::env::var("SLACK_INSTALLS_TEST_REDIS_URL").ok();
    let server = match &given {
        Some(_) => None,
        None => Some(Redis::start().await),
    };
    let url = match (&server, given) {
        (Some(server), _) => server.url(),
        (None, url) => url.unwrap(),
    };
    let client = redis::Client::open(url.as_str()).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut subjects = Vec::new();
    for tenants in tenants {
        remove_keys(&connection, &prefix(tenants)).await;
        let options = RedisOptions {
            prefix: prefix(tenants),
            // Redis rewrites its file after so many commits, which stalls a busy machine.
            response_timeout: PATIENCE,
            ..RedisOptions::default()
        };
        let backend = RedisBackend::open(&url, options).await.unwrap();
        copy_to_redis(&backend, fill::rows(tenants).await).await;
        let bare = bare::Redis {
            connection: client
                .get_multiplexed_async_connection_with_config(
                    &AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE)),
                )
                .await
                .unwrap(),
            prefix: prefix(tenants),
        };
        let sides: Vec<(_, Box<dyn Side>)> = vec![("bare", Box::new(bare))];
        subjects.push(Subject::new(tenants, backend, sides).await);
    }
    RedisPrefixes {
        _server: server,
        connection,
        subjects: subjects.try_into().ok().unwrap(),
    }
}

/// With many commits at once, which Redis brings to its disk together.
async fn copy_to_redis(backend: &RedisBackend, rows: Vec<(Key, Row)>) {
    let commits = rows.into_iter().map(async |(key, row)| {
        let put = Change::Put {
            slot: key.slot,
            row,
            expect: Expect::Absent,
        };
        backend.commit(&key.partition, &[put]).await.unwrap();
    });
    stream::iter(commits)
        .buffer_unordered(COMMITS_AT_ONCE)
        .collect::<()>()
        .await;
}

async fn remove_keys(connection: &MultiplexedConnection, prefix: &str) {
    let mut connection = connection.clone();
    let mut from = 0_u64;
    loop {
        let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(from)
            .arg("MATCH")
            .arg(format!("{{{prefix}:*"))
            .arg("COUNT")
            .arg(1000)
            .query_async(&mut connection)
            .await
            .unwrap();
        for key in keys {
            let () = redis::cmd("UNLINK")
                .arg(key)
                .query_async(&mut connection)
                .await
                .unwrap();
        }
        if next == 0 {
            return;
        }
        from = next;
    }
}

fn prefix(tenants: usize) -> String {
    format!("slack-installs-bench-{tenants}")
}

/// As many as `SqliteBackend` has.
const SQLITE_READERS: u32 = 4;

const COMMITS_AT_ONCE: usize = 256;

const PATIENCE: Duration = Duration::from_secs(30);
