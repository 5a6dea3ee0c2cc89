//! Rows in one table of a Postgres database.

use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;
use sqlx::Connection as _;
use sqlx::Row as _;
use sqlx::postgres::{PgConnectOptions, PgRow};

use super::odd;
use super::seconds::to_seconds;
use super::sql::{self, Columns};
use super::{Backend, Change, Cursor, Error, Expect, Key, Page, Partition, Row, Slot, Version};

mod calls;
mod open;
mod options;
mod schema;

pub use open::PostgresOpenError;
pub use options::PostgresOptions;

use calls::Calls;
use options::Scope;

/// Keeps rows in one table of a Postgres database. Any number of processes may share it.
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
/// Postgres 14 or later, and always the primary. [`connect`](Self::connect) refuses a standby, a
/// read-only server, and one with `fsync`, `full_page_writes` or `synchronous_commit` off, and
/// says what to do. Every new connection is checked again for a standby, since the name of the
/// server may lead elsewhere after a failover. With asynchronous replication, a failover can
/// lose the last commits; `synchronous_standby_names` prevents that.
///
/// # Encryption of the connection
///
/// Use `sslmode=verify-full`. To another machine, a URL with `disable`, `allow` or `prefer` (what
/// it means if it says nothing) is refused, unless
/// [`allow_plaintext`](PostgresOptions::allow_plaintext) is set. Public CAs are built in;
/// `sslrootcert` names the file of another one, which managed services usually need. What the URL
/// does not say comes from `PGHOST`, `PGPASSWORD`, `PGSSLMODE` and the like, and `~/.pgpass`.
///
/// # Poolers
///
/// Through PgBouncer, with `pool_mode = transaction` above all, set
/// [`transaction_pooler`](PostgresOptions::transaction_pooler). Without it a pooler is recognised
/// at the start and refused: sessions there share prepared statements by accident. PgBouncer
/// itself needs no setting for this, `max_prepared_statements` (1.21) included.
///
/// # Time
///
/// Waiting for a connection, for a lock and for a statement all end
/// ([`PostgresOptions`]), as [`Error::Unavailable`]. A connection is taken for the
/// length of one call, and a call waits for nothing but the database.
///
/// # Consistency
///
/// A commit is one call of `slack_commit_1` (see [`migrate`](Self::migrate)), in READ COMMITTED:
/// one round trip. Commits of one partition take turns by an advisory lock of the transaction, a
/// hash of the partition's name, since no row lock keeps a row from appearing while a partition
/// is cleared. Rows that are changed by hand (`DELETE FROM slack_rows WHERE …`) are safe from
/// concurrent commits by their row locks.
///
/// # For operators
///
/// The view `slack_installations` has one line for each bot and each user's token:
///
/// ```sql
/// SELECT team_name, user_id, scopes, installed_at FROM slack_installations;
/// ```
///
/// # What was not tried
///
/// The tests run against Postgres 15 and PgBouncer 1.18 on one machine. Managed services (RDS,
/// Aurora, Cloud SQL, Neon, Supabase) and databases that speak the same protocol were not tried;
/// the latter need PL/pgSQL and `pg_advisory_xact_lock`.
pub struct PostgresBackend {
    calls: Calls,
    /// Without the password.
    name: String,
    schema: String,
}

impl PostgresBackend {
    /// Opens the database at this URL, `postgres://user:password@host:port/database?sslmode=…`,
    /// and makes or updates its tables. Any number of processes may do this at once.
    ///
    /// # Errors
    ///
    /// [`PostgresOpenError`] if the server cannot be reached, or must not be trusted with tokens.
    pub async fn connect(url: &str) -> Result<Self, PostgresOpenError> {
        Self::connect_with(url, PostgresOptions::default()).await
    }

    /// Opens the database at this URL in another way than the usual one.
    ///
    /// With [`row_level_security`](PostgresOptions::row_level_security) it makes no tables, as
    /// the app's role must not own them; [`migrate`](Self::migrate) does.
    ///
    /// # Errors
    ///
    /// [`PostgresOpenError`] if the server cannot be reached, must not be trusted with tokens, or
    /// does not do what the options ask for.
    pub async fn connect_with(
        url: &str,
        options: PostgresOptions,
    ) -> Result<Self, PostgresOpenError> {
        options.check()?;
        let connect = options.connection(url)?;
        let mut connection = open::checked(&connect, &options).await?;
        if options.row_level_security {
            if schema::version(&mut connection, &options).await? < schema::NEWEST {
                return Err(PostgresOpenError::NotMigrated { source: None });
            }
            open::check_wall(&mut connection, &options).await?;
        } else {
            schema::migrate(&mut connection, &options).await?;
        }
        connection.close().await?;
        Ok(Self {
            name: name(&connect),
            schema: options.schema.clone(),
            calls: Calls::new(connect, options),
        })
    }

    /// Makes or updates the tables, and does nothing else. For a deployment where the app's role
    /// may not: run it before the app starts, as the tables' owner. The app's role then needs
    /// `USAGE` on the schema, `SELECT` on `slack_schema`, and `SELECT`, `INSERT`, `UPDATE` and
    /// `DELETE` on `slack_rows`.
    ///
    /// One transaction, so it happens wholly or not at all. An app of an older version keeps
    /// running meanwhile and afterwards, but does not start again.
    ///
    /// The whole schema:
    #[doc = concat!("```sql\n", include_str!("postgres/1.sql"), "\n```")]
    ///
    /// # Errors
    ///
    /// [`PostgresOpenError`] if the server cannot be reached, must not be trusted with tokens, or
    /// does not let this role do it.
    pub async fn migrate(url: &str, options: &PostgresOptions) -> Result<(), PostgresOpenError> {
        options.check()?;
        let mut connection = open::checked(&options.connection(url)?, options).await?;
        schema::migrate(&mut connection, options).await?;
        Ok(connection.close().await?)
    }

    /// Waits for the calls in progress and closes all connections. Every call after this, also
    /// through other references, is [`Error::Unavailable`].
    pub async fn close(&self) {
        self.calls.close().await;
    }
}

impl fmt::Debug for PostgresBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBackend")
            .field("name", &self.name)
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for PostgresBackend {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        let names: Vec<_> = slots.iter().map(Slot::as_str).collect();
        let query = || sqlx::query(READ).bind(partition.as_str()).bind(&names);
        let found = self.calls.read(Scope::Partition(partition), query).await;
        let found = found.map_err(failed)?;
        let name = |columns| PgRow::try_get(columns, 0);
        sql::in_order(slots, &found, name, |columns| row(columns, 1)).map_err(failed)
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
                .bind(&changes.slots)
                .bind(&changes.expectations)
                .bind(&changes.versions)
                .bind(&changes.metadata)
                .bind(&changes.sealed)
                .bind(&changes.due_at)
        };
        let answer = self.calls.write(Scope::Partition(partition), query).await;
        let committed = |rows: Vec<PgRow>| match rows.first() {
            Some(columns) => columns.try_get(0),
            None => Err(sqlx::Error::RowNotFound),
        };
        match answer.and_then(committed).map_err(failed)? {
            true => Ok(()),
            false => Err(Error::Conflict),
        }
    }

    async fn scan(&self, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        let after = from.map(|cursor| cursor.key(KIND)).transpose()?;
        let (partition, slot) = sql::after(after.as_ref());
        let limit = limit.clamp(1, sql::LONGEST_PAGE);
        let rows = sql::limit(limit);
        let query = || sqlx::query(SCAN).bind(partition).bind(slot).bind(rows);
        let found = self.calls.read(Scope::Sweep, query).await;
        let rows = keyed(&found.map_err(failed)?).collect::<Result<_, _>>()?;
        Ok(sql::page(KIND, rows, limit))
    }

    async fn due(&self, now: SystemTime, limit: usize) -> Result<Vec<(Key, Row)>, Error> {
        let query = || {
            sqlx::query(DUE)
                .bind(to_seconds(now))
                .bind(sql::limit(limit))
        };
        let found = self.calls.read(Scope::Sweep, query).await.map_err(failed)?;
        Ok(odd::sound(keyed(&found)))
    }
}

/// Changes of slots, a column for each parameter of `slack_commit_1`.
#[derive(Default)]
struct Changes<'a> {
    slots: Vec<&'a str>,
    expectations: Vec<Option<&'a [u8]>>,
    versions: Vec<Option<&'a [u8]>>,
    metadata: Vec<Option<&'a str>>,
    sealed: Vec<Option<&'a [u8]>>,
    due_at: Vec<Option<i64>>,
}

impl<'a> Changes<'a> {
    fn of(changes: &'a [Change]) -> Self {
        let mut columns = Self::default();
        for change in changes {
            match change {
                Change::Put { slot, row, expect } => {
                    let expected = match expect {
                        Expect::Absent => Some(NOTHING),
                        Expect::Any => None,
                        Expect::Version(version) => Some(bytes(version)),
                    };
                    columns.push(slot, expected, Some(row));
                }
                Change::Delete { slot, only } => {
                    columns.push(slot, only.as_ref().map(bytes), None);
                }
                Change::Clear => {}
            }
        }
        columns
    }

    fn push(&mut self, slot: &'a Slot, expected: Option<&'a [u8]>, row: Option<&'a Row>) {
        self.slots.push(slot.as_str());
        self.expectations.push(expected);
        self.versions.push(row.map(|row| bytes(&row.version)));
        self.metadata.push(row.map(|row| row.metadata.as_str()));
        self.sealed.push(row.map(|row| row.sealed.as_bytes()));
        self.due_at
            .push(row.and_then(|row| row.due_at.map(to_seconds)));
    }
}

fn bytes(version: &Version) -> &[u8] {
    version.as_bytes().as_slice()
}

/// Each row, or what is wrong with it.
fn keyed(found: &[PgRow]) -> impl Iterator<Item = Result<(Key, Row), Error>> {
    found.iter().map(|columns| {
        let name = |at| columns.try_get(at).map_err(failed);
        let key = sql::key(name(0)?, name(1)?).map_err(failed)?;
        match row(columns, 2).map_err(failed) {
            Ok(row) => Ok((key, row)),
            Err(error) => Err(odd::named(&key, error)),
        }
    })
}

/// The row whose columns begin at this one.
fn row(columns: &PgRow, first: usize) -> Result<Row, sqlx::Error> {
    Row::try_from(Columns {
        version: columns.try_get(first)?,
        metadata: columns.try_get(first + 1)?,
        sealed: columns.try_get(first + 2)?,
        due_at: columns.try_get(first + 3)?,
    })
}

/// Which database, without the password.
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

/// What a driver's error means to a caller. All that is not known to be permanent is transient.
fn failed(error: sqlx::Error) -> Error {
    use sqlx::Error::{ColumnDecode, Decode, Encode};
    let permanent = match &error {
        ColumnDecode { .. } | Decode(_) | Encode(_) => true,
        other => {
            code(other).is_some_and(|code| PERMANENT.iter().any(|class| code.starts_with(class)))
        }
    };
    match permanent {
        true => Error::Malformed(error.into()),
        false => Error::Unavailable(error.into()),
    }
}

/// Postgres' code of an error: five characters, of which the first two are its class.
fn code(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error()?.code()
}

/// In its cursors.
const KIND: &str = "postgres";

/// What `slack_commit_1` takes for "no row".
const NOTHING: &[u8] = &[];

/// Classes of errors that the same statement meets again: data that cannot be, a constraint, a
/// right or a table that is missing, a limit of the server's.
const PERMANENT: [&str; 4] = ["22", "23", "42", "54"];

const COMMIT: &str = "SELECT slack_commit_1($1, $2, $3, $4, $5, $6, $7, $8)";

const DUE: &str = "
SELECT partition, slot, version, metadata::text, sealed, due_at FROM slack_rows
WHERE due_at <= $1 ORDER BY due_at LIMIT $2";

const READ: &str = "
SELECT slot, version, metadata::text, sealed, due_at FROM slack_rows
WHERE partition = $1 AND slot = ANY ($2)";

const SCAN: &str = "
SELECT partition, slot, version, metadata::text, sealed, due_at FROM slack_rows
WHERE (partition, slot) > ($1, $2) ORDER BY partition, slot LIMIT $3";
