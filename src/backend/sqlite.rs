//! Stores rows in one SQLite file: the embedded default for a bot on one machine.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use super::seconds::to_seconds;
use super::sql::{self, After, Order, Pool, Source, read_few};
use super::{
    Backend, Change, ConnectError, Cursor, Error, Expect, Page, Partition, Queue, Row, Scope, Slot,
    Version,
};

mod open;
mod schema;
mod url;

/// Stores rows in one SQLite file. Several processes of one machine may share it.
///
/// Only the file's owner can read it and SQLite's `-wal` and `-shm` files in the same directory. A
/// commit that succeeded is on the disk. The file must be on a local disk, because SQLite's locks
/// do not work on a network share.
///
/// Deleted data is overwritten with zeros when SQLite next writes the write-ahead log back into the
/// file; by default after about 1000 pages. The log itself keeps old pages until they are
/// overwritten. They are certainly deleted when the log is emptied: by [`close`](Self::close), or
/// by the last process that closes the file. All of this data is sealed.
///
/// For operators, the view `slack_installations` has one row for each bot token and each user
/// token, with times in UTC:
///
/// ```text
/// sqlite3 installations.sqlite3 'SELECT team_id, user_id, scopes FROM slack_installations'
/// ```
///
/// On Unix, if a process opens and closes the file without SQLite, its SQLite loses the locks on
/// that file. So copy the file from another process (`sqlite3 … .backup`).
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("installations.sqlite3");
/// use slack_installs::backend::SqliteBackend;
///
/// let backend = SqliteBackend::open(&path).await?;
/// # backend.close().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SqliteBackend {
    path: PathBuf,
    readers: Arc<Pool<SqliteConnectOptions>>,
    /// One connection: SQLite has one writer at a time, and waiting for this pool is fair.
    writer: Arc<Pool<SqliteConnectOptions>>,
}

impl SqliteBackend {
    /// Opens this file, or creates it if it does not exist. Its directory must exist.
    ///
    /// If other users may read or write the file, removes their permissions. Any number of
    /// processes may open the file at once.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the file cannot be created, if it is another program's, or if a newer
    /// version of this crate wrote it. Another program's file is left unchanged.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, ConnectError> {
        let path = open::create(path.as_ref())?;
        let writer = open::writer(&path, false).await?;
        let readers = open::readers(&path).await?;
        Ok(Self {
            path,
            readers,
            writer,
        })
    }

    /// Creates or migrates the tables. Also creates parts of the schema that were dropped.
    async fn migrate(path: impl AsRef<Path>) -> Result<(), ConnectError> {
        let path = open::create(path.as_ref())?;
        open::writer(&path, true).await?.close().await;
        Ok(())
    }

    /// Returns the parts of the schema that the file lacks.
    async fn missing(path: impl AsRef<Path>) -> Result<Vec<String>, ConnectError> {
        let path = open::existing(path.as_ref())?;
        Ok(open::missing(&path).await?.names())
    }

    /// Opens an existing file for reading. Creates, migrates and changes nothing.
    async fn open_to_read(path: impl AsRef<Path>) -> Result<Self, ConnectError> {
        let path = open::existing(path.as_ref())?;
        let readers = open::checked_readers(&path).await?;
        Ok(Self {
            path,
            writer: Arc::clone(&readers),
            readers,
        })
    }

    /// Writes the log back into the file, empties the log, and closes the file. Every later call,
    /// also through other references, returns [`Error::Unavailable`].
    ///
    /// A backend that is dropped without this call loses nothing; the next process that opens the
    /// file writes the log back.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if the log could not be written back and emptied, for example because
    /// another process uses the file. The file is closed anyway, and nothing is lost.
    pub async fn close(&self) -> Result<(), Error> {
        self.readers.close().await;
        let written = self.write_back().await;
        self.writer.close().await;
        written
    }

    async fn write_back(&self) -> Result<(), Error> {
        let mut writer = self.writer.acquire().await?;
        let written = sqlx::query(CHECKPOINT).fetch_one(&mut *writer).await;
        let is_blocked = written.and_then(|columns| columns.try_get::<i64, _>(0));
        let is_blocked = is_blocked.map_err(failed)?;
        writer.keep();
        // The result says whether another reader or writer prevented the log from being emptied.
        if is_blocked != 0 {
            let others =
                "another process uses the file, so its log was not emptied; nothing is lost";
            return Err(Error::Unavailable(others.into()));
        }
        Ok(())
    }

    /// Returns the rows of a query that writes nothing.
    async fn fetch(
        &self,
        query: Query<'_, Sqlite, SqliteArguments>,
    ) -> Result<Vec<SqliteRow>, Error> {
        let mut reader = self.readers.acquire().await?;
        let found = query.fetch_all(&mut *reader).await.map_err(failed)?;
        reader.keep();
        Ok(found)
    }
}

impl Source for SqliteConnectOptions {
    type Connection = SqliteConnection;

    async fn open(&self) -> Result<SqliteConnection, sqlx::Error> {
        self.connect().await
    }

    /// A connection to a local file does not go stale.
    fn is_suspect(&self, _: Duration) -> bool {
        false
    }
}

debug_fields!(SqliteBackend: path);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for SqliteBackend {
    async fn read(&self, partition: &Partition, slots: &[Slot]) -> Result<Vec<Option<Row>>, Error> {
        let few = slots.len().checked_sub(1);
        let query = match few.and_then(|more| READ_FEW.get(more)) {
            Some(&read) => {
                let query = sqlx::query(read).bind(partition.as_str());
                let slots = slots.iter().map(Slot::as_str);
                slots.fold(query, Query::bind)
            }
            None => sqlx::query(READ).bind(partition.as_str()).bind(json(slots)),
        };
        let found = self.fetch(query).await?;
        sql::in_order(slots, &found).map_err(failed)
    }

    async fn commit(&self, partition: &Partition, changes: &[Change]) -> Result<(), Error> {
        Change::check(changes)?;
        if changes.is_empty() {
            return Ok(());
        }
        let mut writer = self.writer.acquire().await?;
        // On some errors (disk full, I/O) SQLite ends the transaction by itself, and sqlx does not
        // notice. So after an error, the next commit gets another connection.
        let applied = apply(&mut writer, partition, changes)
            .await
            .map_err(failed)?;
        writer.keep();
        if applied {
            Ok(())
        } else {
            Err(Error::Conflict)
        }
    }

    async fn scan(&self, scope: &Scope, from: Option<Cursor>, limit: usize) -> Result<Page, Error> {
        let limit = limit.clamp(1, sql::LONGEST_PAGE);
        let after = After::from_cursor(KIND, Order::Key, from.as_ref())?.within(scope);
        let end;
        let query = match scope {
            Scope::Everything => sqlx::query(SCAN),
            Scope::Partition(_) => sqlx::query(SCAN_PARTITION),
            Scope::Prefix(_) => sqlx::query(SCAN_PREFIX),
        };
        let mut query = query
            .bind(&after.partition)
            .bind(&after.slot)
            .bind(sql::limit(limit));
        if let Scope::Prefix(prefix) = scope {
            end = sql::end_of(prefix);
            query = query.bind(&end);
        }
        let found = self.fetch(query).await?;
        sql::page(KIND, Order::Key, &found, limit).map_err(failed)
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
        let query = sqlx::query(DUE)
            .bind(queue.app())
            .bind(queue.lane().as_str())
            .bind(to_seconds(now))
            .bind(after.due_at.unwrap_or(i64::MIN))
            .bind(&after.partition)
            .bind(&after.slot)
            .bind(sql::limit(limit));
        let found = self.fetch(query).await?;
        sql::page(KIND, Order::Due, &found, limit).map_err(failed)
    }
}

/// Applies a commit. Returns `false` if a row does not meet its expectation.
///
/// If it is dropped at any point, the connection rolls the transaction back when it closes.
async fn apply(
    connection: &mut SqliteConnection,
    partition: &Partition,
    changes: &[Change],
) -> Result<bool, sqlx::Error> {
    let mut transaction = connection.begin_with(BEGIN).await?;
    // A row without an expectation may be malformed: it is replaced or deleted without being
    // parsed.
    let expecting = changes.iter().filter(|change| {
        !matches!(
            change,
            Change::Put {
                expect: Expect::Any,
                ..
            } | Change::Delete { only: None, .. }
        )
    });
    let slots: Vec<_> = expecting.filter_map(Change::slot).collect();
    let query = sqlx::query(STANDING)
        .bind(partition.as_str())
        .bind(json(slots));
    let found = query.fetch_all(&mut *transaction).await?;
    let named = |columns: &SqliteRow| Ok((columns.try_get(0)?, sql::version(columns.try_get(1)?)?));
    let standing: HashMap<String, Version> = found
        .iter()
        .map(named)
        .collect::<Result<_, sqlx::Error>>()?;
    let allowed = |change: &Change| {
        let slot = change.slot().map(Slot::as_str);
        change.allows(slot.and_then(|slot| standing.get(slot)).copied())
    };
    if !changes.iter().all(allowed) {
        transaction.rollback().await?;
        return Ok(false);
    }
    if changes.iter().any(|change| matches!(change, Change::Clear)) {
        sqlx::query(CLEAR)
            .bind(partition.as_str())
            .execute(&mut *transaction)
            .await?;
    }
    for change in changes {
        let query = match change {
            Change::Put { slot, row, .. } => sqlx::query(PUT)
                .bind(partition.as_str())
                .bind(slot.as_str())
                .bind(row.version.as_bytes().as_slice())
                .bind(row.metadata.as_str())
                .bind(row.sealed.as_bytes())
                .bind(row.due.map(|due| due.lane.as_str()))
                .bind(row.due.map(|due| to_seconds(due.at))),
            Change::Delete { slot, .. } => sqlx::query(DELETE)
                .bind(partition.as_str())
                .bind(slot.as_str()),
            Change::Check { .. } | Change::Clear => continue,
        };
        query.execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(true)
}

/// Returns the names as a JSON array, which a statement with a fixed text can unpack.
fn json<'a>(slots: impl IntoIterator<Item = &'a Slot>) -> String {
    let names: Vec<_> = slots.into_iter().map(Slot::as_str).collect();
    serde_json::to_string(&names).expect("strings always serialise")
}

macro_rules! columns {
    () => {
        "SELECT CAST(partition AS BLOB), CAST(slot AS BLOB), version, metadata, sealed, lane, \
         due_at FROM slack_rows "
    };
}

macro_rules! read_slot {
    ($slot:literal) => {
        concat!(
            "SELECT slot, version, metadata, sealed, lane, due_at FROM slack_rows ",
            "WHERE partition = ?1 AND slot = ",
            $slot
        )
    };
}

/// Maps a driver's error.
fn failed(error: sqlx::Error) -> Error {
    sql::failed(error, |code| {
        primary(code).is_some_and(|code| PERMANENT.contains(&code))
    })
}

fn primary_code(error: &sqlx::Error) -> Option<i32> {
    primary(&error.as_database_error()?.code()?)
}

/// Returns SQLite's primary result code, without its extension.
fn primary(code: &str) -> Option<i32> {
    let code: i32 = code.parse().ok()?;
    Some(code & 0xff)
}

/// Result codes that the same statement always returns: `ERROR`, `CORRUPT`, `TOOBIG`, `CONSTRAINT`,
/// `MISMATCH`, `RANGE` and `NOTADB`.
const PERMANENT: [i32; 7] = [1, 11, 18, 19, 20, 25, NOT_A_DATABASE];
const BUSY: i32 = 5;
const CANNOT_OPEN: i32 = 14;
const NOT_A_DATABASE: i32 = 26;
const READ_ONLY: i32 = 8;

/// Takes the write lock at once, because a transaction that reads first cannot wait for it later.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// The kind of this backend's cursors.
const KIND: &str = "sqlite";

const CHECKPOINT: &str = "PRAGMA wal_checkpoint(TRUNCATE)";

const CLEAR: &str = "DELETE FROM slack_rows WHERE partition = ?1";

const DELETE: &str = "DELETE FROM slack_rows WHERE partition = ?1 AND slot = ?2";

/// The first condition must have the same text as the index's expression, or the index is not used.
const DUE: &str = concat!(
    columns!(),
    "WHERE substr(partition, 1, instr(partition, '/') - 1) = ?1 AND lane = ?2 AND due_at <= ?3 \
     AND (due_at, partition, slot) > (?4, CAST(?5 AS TEXT), CAST(?6 AS TEXT)) \
     ORDER BY due_at, partition, slot LIMIT ?7"
);

const PUT: &str = "
INSERT INTO slack_rows (partition, slot, version, metadata, sealed, lane, due_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
ON CONFLICT (partition, slot) DO UPDATE SET version = excluded.version,
  metadata = excluded.metadata, sealed = excluded.sealed, lane = excluded.lane,
  due_at = excluded.due_at";

/// Reads any number of slots.
const READ: &str = "
SELECT slot, version, metadata, sealed, lane, due_at FROM slack_rows
WHERE partition = ?1 AND slot IN (SELECT value FROM json_each(?2))";

/// Each slot is one key lookup. Unpacking a list would take longer than the lookups.
const READ_FEW: [&str; 3] = read_few!(read_slot, "?2", "?3", "?4");

const SCAN: &str = concat!(
    columns!(),
    "WHERE (partition, slot) > (CAST(?1 AS TEXT), CAST(?2 AS TEXT)) \
     ORDER BY partition, slot LIMIT ?3"
);

const SCAN_PARTITION: &str = concat!(
    columns!(),
    "WHERE partition = CAST(?1 AS TEXT) AND slot > CAST(?2 AS TEXT) ORDER BY slot LIMIT ?3"
);

const SCAN_PREFIX: &str = concat!(
    columns!(),
    "WHERE (partition, slot) > (CAST(?1 AS TEXT), CAST(?2 AS TEXT)) AND partition < ?4 \
     ORDER BY partition, slot LIMIT ?3"
);

const STANDING: &str = "
SELECT slot, version FROM slack_rows
WHERE partition = ?1 AND slot IN (SELECT value FROM json_each(?2))";
