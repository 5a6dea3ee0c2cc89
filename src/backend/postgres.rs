//! Stores rows in one table of a Postgres database.

use std::borrow::Cow;
use std::time::SystemTime;

use async_trait::async_trait;
use sqlx::Connection as _;
use sqlx::Row as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};

use super::seconds::to_seconds;
use super::sql::{self, After, Order, read_few};
use super::{
    Backend, Change, ConnectError, Cursor, Error, Expect, Page, Partition, Queue, Row, Scope, Slot,
    Version,
};

mod calls;
mod open;
mod options;
mod schema;
mod url;

pub use options::PostgresOptions;

use calls::Calls;
use options::Opens;

/// Stores rows in one table of a Postgres database. Any number of processes may share it.
///
/// ```no_run
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use slack_installs::backend::PostgresBackend;
///
/// let url = "postgres://bot@db.example.com/bot?sslmode=verify-full&sslrootcert=ca.pem";
/// let backend = PostgresBackend::connect(url).await?;
/// # drop(backend);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Server
///
/// The server must be Postgres 14 or later, and the primary. [`connect`](Self::connect) refuses a
/// standby, a read-only server, and a server with `fsync`, `full_page_writes` or
/// `synchronous_commit` off. Its error names the remedy. Every new connection is checked again for
/// a standby, because the host name may resolve to another server after a failover. With
/// asynchronous replication, a failover can lose the last commits; `synchronous_standby_names`
/// prevents that.
///
/// # Encryption of the connection
///
/// Use `sslmode=verify-full`. For another machine, `disable`, `allow` and `prefer` (the default)
/// are refused, unless [`allow_plaintext`](PostgresOptions::allow_plaintext) is set. Public CAs are
/// built in; `sslrootcert` names the file of another CA, which managed services usually require.
/// Settings that the URL omits come from the environment (`PGHOST`, `PGPASSWORD`, `PGSSLMODE` and
/// the other `PG…` variables that sqlx reads) and from `~/.pgpass`.
///
/// # Poolers
///
/// Behind PgBouncer, especially with `pool_mode = transaction`, set
/// [`transaction_pooler`](PostgresOptions::transaction_pooler). Without it, a pooler is recognised
/// at the start and refused, because its sessions share prepared statements by accident. PgBouncer
/// itself needs no special setting, not even `max_prepared_statements` (1.21).
///
/// # Timeouts
///
/// The waits for a connection, for a lock and for a statement all have timeouts
/// ([`PostgresOptions`]); after that a call is [`Error::Unavailable`]. A call uses one connection
/// for its whole length, and waits only for the database.
///
/// # Consistency
///
/// A commit is one call of `slack_commit_1` (see [`migrate`](Self::migrate)), in READ COMMITTED:
/// one round trip. Commits of one partition run one after the other. Each takes a transaction-level
/// advisory lock on a hash of the partition's name. Row locks alone are not enough: they cannot
/// stop a new row from appearing while a partition is cleared. Changes by hand (`DELETE FROM
/// slack_rows WHERE …`) are safe from concurrent commits through their row locks.
///
/// # For operators
///
/// The view `slack_installations` has one row for each bot token and each user token:
///
/// ```sql
/// SELECT team_name, user_id, scopes, installed_at FROM slack_installations;
/// ```
///
/// # Not verified
///
/// The tests run against Postgres 15 and PgBouncer 1.18 on one machine. They do not cover managed
/// services (RDS, Aurora, Cloud SQL, Neon, Supabase) or databases that speak the same protocol.
/// Such databases must support PL/pgSQL and `pg_advisory_xact_lock`.
pub struct PostgresBackend {
    calls: Calls,
    /// Host, port and database, without the password.
    name: String,
    schema: String,
}

impl PostgresBackend {
    /// Opens the database at this URL, `postgres://user:password@host:port/database?sslmode=…`,
    /// and creates or migrates its tables. Any number of processes may do this at once.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the server cannot be reached, or is not safe for tokens.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        Self::connect_with(url, PostgresOptions::default()).await
    }

    /// Opens the database at this URL with these options.
    ///
    /// With [`row_level_security`](PostgresOptions::row_level_security), does not create the
    /// tables, because the app's role must not own them. Use [`migrate`](Self::migrate) instead.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the server cannot be reached, is not safe for tokens, or does not
    /// support the options.
    pub async fn connect_with(url: &str, options: PostgresOptions) -> Result<Self, ConnectError> {
        let may_migrate = !options.row_level_security;
        Self::connect_as(url, options, may_migrate).await
    }

    async fn connect_as(
        url: &str,
        options: PostgresOptions,
        may_migrate: bool,
    ) -> Result<Self, ConnectError> {
        let connect = options.connection(url)?;
        let has_wall = options.row_level_security;
        let mut connection = open::migrated(&connect, &options, may_migrate).await?;
        open::check_parts(&mut connection, &connect, &options).await?;
        if has_wall {
            open::check_wall(&mut connection, &options).await?;
        }
        let name = name(&connect);
        closed(connection, &name).await?;
        Ok(Self {
            name,
            schema: options.schema.clone(),
            calls: Calls::new(connect, options),
        })
    }

    /// Creates or migrates the tables, and does nothing else.
    ///
    /// Use it if the app's role has no permission to create tables: run it as the tables' owner
    /// before the app starts. The app's role then requires `USAGE` on the schema, `SELECT` on
    /// `slack_schema`, and `SELECT`, `INSERT`, `UPDATE` and `DELETE` on `slack_rows`.
    ///
    /// Parts of the schema that were dropped by hand are created again. A table is then empty, and
    /// has no row-level security.
    ///
    /// It is one transaction, applied wholly or not at all. An app with an older version of this
    /// crate keeps running, but does not start again.
    ///
    /// This is the whole schema:
    #[doc = concat!("```sql\n", include_str!("postgres/1.sql"), "\n```")]
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the server cannot be reached, is not safe for tokens, or refuses the
    /// change to this role.
    pub async fn migrate(url: &str, options: &PostgresOptions) -> Result<(), ConnectError> {
        let connect = options.connection(url)?;
        let mut connection = open::migrated(&connect, options, true).await?;
        open::restore(&mut connection, &connect, options).await?;
        closed(connection, &name(&connect)).await
    }

    /// Returns the parts of the schema that the database lacks.
    async fn missing(url: &str, options: &PostgresOptions) -> Result<Vec<String>, ConnectError> {
        let connect = options.connection(url)?;
        let mut connection = open::migrated(&connect, options, false).await?;
        let missing = open::missing(&mut connection, &connect, options).await?;
        closed(connection, &name(&connect)).await?;
        Ok(missing.names())
    }

    /// Waits for the calls in progress and closes all connections. Every later call, also through
    /// other references, returns [`Error::Unavailable`].
    pub async fn close(&self) {
        self.calls.close().await;
    }
}

debug_fields!(PostgresBackend: name, schema);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for PostgresBackend {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        let names: Vec<_> = slots.iter().map(Slot::as_str).collect();
        let few = names.len().checked_sub(1);
        let query = || match few.and_then(|more| READ_FEW.get(more)) {
            Some(&read) => {
                let query = sqlx::query(read).bind(partition.as_str());
                names.iter().fold(query, |query, name| query.bind(*name))
            }
            None => sqlx::query(READ).bind(partition.as_str()).bind(&names),
        };
        let found = self.calls.read(Opens::Partition(partition), query).await;
        sql::in_order(slots, &found?).map_err(failed)
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        Change::check(changes)?;
        if changes.is_empty() {
            return Ok(());
        }
        let clear = changes.iter().any(|change| matches!(change, Change::Clear));
        let changes = Changes::of(changes);
        let query = || {
            sqlx::query(COMMIT)
                .bind(partition.as_str())
                .bind(clear)
                .bind(&changes.expected_slots)
                .bind(&changes.expected)
                .bind(&changes.deleted)
                .bind(&changes.slots)
                .bind(&changes.versions)
                .bind(&changes.metadata)
                .bind(&changes.sealed)
                .bind(&changes.lanes)
                .bind(&changes.due_at)
        };
        let answer = self.calls.write(Opens::Partition(partition), query).await;
        let rows = answer?;
        let answer = rows.first().ok_or(sqlx::Error::RowNotFound);
        let committed = answer.and_then(|columns| columns.try_get(0));
        if committed.map_err(failed)? {
            Ok(())
        } else {
            Err(Error::Conflict)
        }
    }

    async fn scan(&self, scope: &Scope, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        let limit = limit.clamp(1, sql::LONGEST_PAGE);
        let after = After::from_cursor(KIND, Order::Key, from.as_ref())?.within(scope);
        let (partition, slot) = (text(&after.partition)?, text(&after.slot)?);
        let rows = sql::limit(limit);
        let by_key = |statement| sqlx::query(statement).bind(partition).bind(slot).bind(rows);
        let found = match scope {
            Scope::Everything => {
                let query = || by_key(SCAN);
                self.calls.read(Opens::Everything, query).await
            }
            Scope::Partition(partition) => {
                let query = || by_key(SCAN_PARTITION);
                self.calls.read(Opens::Partition(partition), query).await
            }
            Scope::Prefix(prefix) => {
                let end = sql::end_of(prefix);
                let query = || by_key(SCAN_PREFIX).bind(&end);
                let opens = Opens::Prefix(prefix.as_str());
                self.calls.read(opens, query).await
            }
        };
        sql::page(KIND, Order::Key, &found?, limit).map_err(failed)
    }

    async fn due(
        &self,
        queue: &Queue,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        let limit = limit.clamp(1, sql::LONGEST_PAGE);
        let after = After::from_cursor(KIND, Order::Due, from.as_ref())?;
        let (partition, slot) = (text(&after.partition)?, text(&after.slot)?);
        let query = || {
            sqlx::query(DUE)
                .bind(queue.app())
                .bind(queue.lane().as_str())
                .bind(to_seconds(now))
                .bind(after.due_at.unwrap_or(i64::MIN))
                .bind(partition)
                .bind(slot)
                .bind(sql::limit(limit))
        };
        let app = format!("{}/", queue.app());
        let found = self.calls.read(Opens::Prefix(&app), query).await;
        sql::page(KIND, Order::Due, &found?, limit).map_err(failed)
    }
}

/// The changes of a commit: one column for each parameter of `slack_commit_1`.
#[derive(Default)]
struct Changes<'a> {
    expected_slots: Vec<&'a str>,
    expected: Vec<&'a [u8]>,
    deleted: Vec<&'a str>,
    slots: Vec<&'a str>,
    versions: Vec<&'a [u8]>,
    metadata: Vec<&'a str>,
    sealed: Vec<&'a [u8]>,
    lanes: Vec<Option<&'static str>>,
    due_at: Vec<Option<i64>>,
}

impl<'a> Changes<'a> {
    fn of(changes: &'a [Change]) -> Self {
        let mut columns = Self::default();
        for change in changes {
            match change {
                Change::Check { slot, version } => columns.expect(slot, bytes(version)),
                Change::Clear => {}
                Change::Delete { slot, only } => {
                    if let Some(version) = only {
                        columns.expect(slot, bytes(version));
                    }
                    columns.deleted.push(slot.as_str());
                }
                Change::Put { slot, row, expect } => {
                    match expect {
                        Expect::Absent => columns.expect(slot, NOTHING),
                        Expect::Any => {}
                        Expect::Version(version) => columns.expect(slot, bytes(version)),
                    }
                    columns.put(slot, row);
                }
            }
        }
        columns
    }

    fn expect(&mut self, slot: &'a Slot, version: &'a [u8]) {
        self.expected_slots.push(slot.as_str());
        self.expected.push(version);
    }

    fn put(&mut self, slot: &'a Slot, row: &'a Row) {
        self.slots.push(slot.as_str());
        self.versions.push(bytes(&row.version));
        self.metadata.push(row.metadata.as_str());
        self.sealed.push(row.sealed.as_bytes());
        self.lanes.push(row.due.map(|due| due.lane.as_str()));
        self.due_at.push(row.due.map(|due| to_seconds(due.at)));
    }
}

macro_rules! read_slot {
    ($slot:literal) => {
        concat!(
            "SELECT slot, version, metadata::text, sealed, lane, due_at FROM slack_rows ",
            "WHERE partition = $1 AND slack_rows.slot = ",
            $slot
        )
    };
}

/// Returns a name of a cursor as text.
fn text(name: &[u8]) -> Result<&str, Error> {
    str::from_utf8(name).map_err(|error| Error::Malformed(error.into()))
}

fn bytes(version: &Version) -> &[u8] {
    version.as_bytes().as_slice()
}

async fn closed(connection: PgConnection, name: &str) -> Result<(), ConnectError> {
    let closed = connection.close().await;
    closed.map_err(|error| open::failed(error, name))
}

/// Returns host, port and database, without the password.
fn name(connect: &PgConnectOptions) -> String {
    let host = match connect.get_socket() {
        Some(socket) => socket.to_string_lossy(),
        None => Cow::Borrowed(connect.get_host()),
    };
    let database = connect
        .get_database()
        .unwrap_or_else(|| connect.get_username());
    format!("{host}:{}/{database}", connect.get_port())
}

/// Maps a driver's error.
fn failed(error: sqlx::Error) -> Error {
    sql::failed(error, |code| {
        PERMANENT.iter().any(|class| code.starts_with(class))
    })
}

/// Returns Postgres' error code (SQLSTATE): five characters, of which the first two are its class.
fn code(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error()?.code()
}

/// The kind of this backend's cursors.
const KIND: &str = "postgres";

/// The value that `slack_commit_1` treats as "no row".
const NOTHING: &[u8] = &[];

/// Classes of error codes that say that a row or a request is at fault: invalid data, a constraint
/// violation, or a limit of the server. A missing permission or table (class 42) says nothing about a
/// row, and must not look like damage.
const PERMANENT: [&str; 3] = ["22", "23", "54"];

const COMMIT: &str = "SELECT slack_commit_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

/// The first condition must have the same text as the index's expression, or the index is not used.
const DUE: &str = "
SELECT partition, slot, version, metadata::text, sealed, lane, due_at FROM slack_rows
WHERE split_part(partition, '/', 1) = $1 AND lane = $2 AND due_at <= $3
  AND (due_at, partition, slot) > ($4, $5, $6)
ORDER BY due_at, partition, slot LIMIT $7";

/// Reads any number of slots. Each slot is looked up by the whole key. With `slot = ANY ($2)`, the
/// planner may read the whole partition, because it expects few rows in one.
const READ: &str = concat!(
    "SELECT found.* FROM unnest($2) AS named (slot), LATERAL (",
    read_slot!("named.slot"),
    " LIMIT 1) AS found"
);

/// The server plans [`READ`] again for each call, and these only once.
const READ_FEW: [&str; 3] = read_few!(read_slot, "$2", "$3", "$4");

const SCAN: &str = "
SELECT partition, slot, version, metadata::text, sealed, lane, due_at FROM slack_rows
WHERE (partition, slot) > ($1, $2) ORDER BY partition, slot LIMIT $3";

const SCAN_PARTITION: &str = "
SELECT partition, slot, version, metadata::text, sealed, lane, due_at FROM slack_rows
WHERE partition = $1 AND slot > $2 ORDER BY slot LIMIT $3";

const SCAN_PREFIX: &str = "
SELECT partition, slot, version, metadata::text, sealed, lane, due_at FROM slack_rows
WHERE (partition, slot) > ($1, $2) AND partition < $4 ORDER BY partition, slot LIMIT $3";
