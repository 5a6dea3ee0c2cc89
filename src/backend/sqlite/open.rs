//! Opens the connections to a file, and sets its mode, its settings and its schema.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteSynchronous};
use tokio::time::{Instant, sleep};

use super::schema;
use super::{BUSY, CANNOT_OPEN, NOT_A_DATABASE, READ_ONLY, primary_code};
use crate::backend::sql::{Limits, Missing, Pool};
use crate::backend::{ConnectError, ConnectErrorKind as Kind};

/// Creates the file, readable by its owner only, unless it exists. Returns its full path.
///
/// An existing file is never opened here, because closing it again would drop the locks that this
/// process's SQLite holds on it.
pub(super) fn create(path: &Path) -> Result<PathBuf, ConnectError> {
    // While the file is created, its descriptor is open, so no thread may open the database
    // meanwhile.
    static CREATING: Mutex<()> = Mutex::new(());
    let _creating = CREATING.lock().unwrap_or_else(PoisonError::into_inner);

    if path == Path::new(":memory:") {
        return Err(refused(Kind::Invalid, path, NOT_A_FILE));
    }
    let file = |error| unusable(path, error);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, PRIVATE);
    match options.open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(file(error)),
    }
    // SQLite keeps its other files next to the real file, even if the path is a link.
    let real = path.canonicalize().map_err(file)?;
    let metadata = real.metadata().map_err(file)?;
    if !metadata.is_file() {
        return Err(refused(Kind::Invalid, path, NOT_A_FILE));
    }
    // SQLite treats a shorter file as empty, and would overwrite its data.
    if (1..SMALLEST).contains(&metadata.len()) {
        return Err(refused(Kind::Foreign, path, FOREIGN));
    }
    Ok(real)
}

/// Opens the connection that writes. Checks that the file is this crate's, migrates it, and makes
/// it private. If `restores`, also creates parts of the schema that were dropped.
pub(super) async fn writer(
    path: &Path,
    restores: bool,
) -> Result<Arc<Pool<SqliteConnectOptions>>, ConnectError> {
    let failed = |error| failed(path, error);
    let options = options(path)
        .synchronous(SqliteSynchronous::Full)
        .pragma("secure_delete", "ON");
    let mut connection = options.connect().await.map_err(failed)?;
    match schema::migrate(&mut connection).await.map_err(failed)? {
        Some(schema::NEWEST) => {}
        Some(newer) => return Err(newer_schema(path, newer)),
        None => return Err(refused(Kind::Foreign, path, FOREIGN)),
    }
    if restores {
        schema::restore(&mut connection).await.map_err(failed)?;
    }
    check_parts(path, &mut connection).await?;
    tighten(path).map_err(|error| unusable(path, error))?;
    if !keeps_log(&mut connection).await.map_err(failed)? {
        let text = "is on a disk where SQLite cannot keep a write-ahead log; use a local disk";
        return Err(refused(Kind::Misconfigured, path, text));
    }
    Ok(pool(options, 1, connection))
}

/// Opens the connections that read.
pub(super) async fn readers(path: &Path) -> Result<Arc<Pool<SqliteConnectOptions>>, ConnectError> {
    let options = options(path).pragma("query_only", "ON");
    let connection = options.connect().await;
    let connection = connection.map_err(|error| failed(path, error))?;
    Ok(pool(options, READERS, connection))
}

/// Returns the full path of a file that exists.
pub(super) fn existing(path: &Path) -> Result<PathBuf, ConnectError> {
    let missing = |error| {
        let text = "does not exist or cannot be opened; check the path";
        refused(Kind::NotMigrated, path, text).with_source(error)
    };
    let real = path.canonicalize().map_err(missing)?;
    if real.metadata().map_err(missing)?.is_file() {
        Ok(real)
    } else {
        Err(refused(Kind::Invalid, path, NOT_A_FILE))
    }
}

/// Opens connections that only read. Checks that the file is this crate's and has its newest
/// schema.
pub(super) async fn checked_readers(
    path: &Path,
) -> Result<Arc<Pool<SqliteConnectOptions>>, ConnectError> {
    let failed = |error| failed(path, error);
    let options = options(path).read_only(true);
    let mut connection = options.connect().await.map_err(failed)?;
    check_version(path, &mut connection).await?;
    check_parts(path, &mut connection).await?;
    Ok(pool(options, READERS, connection))
}

/// Returns which parts of the schema the file lacks.
pub(super) async fn missing(path: &Path) -> Result<Missing, ConnectError> {
    let failed = |error| failed(path, error);
    let connection = options(path).read_only(true).connect().await;
    let mut connection = connection.map_err(failed)?;
    check_version(path, &mut connection).await?;
    schema::missing(&mut connection).await.map_err(failed)
}

/// Checks that the parts without which no row can be read or changed exist.
async fn check_parts(path: &Path, connection: &mut SqliteConnection) -> Result<(), ConnectError> {
    let missing = schema::missing(connection).await;
    let needed = missing.map_err(|error| failed(path, error))?.needed();
    if needed.is_empty() {
        Ok(())
    } else {
        Err(needed.error(&path.display().to_string()))
    }
}

/// Checks that the file is this crate's, and has the newest schema.
async fn check_version(path: &Path, connection: &mut SqliteConnection) -> Result<(), ConnectError> {
    let version = schema::version(connection).await;
    match version.map_err(|error| failed(path, error))? {
        Some(schema::NEWEST) => Ok(()),
        Some(older) if older < schema::NEWEST => {
            let text = "has no tables of slack-installs, or old ones; run `slack-installs migrate`";
            Err(refused(Kind::NotMigrated, path, text))
        }
        Some(newer) => Err(newer_schema(path, newer)),
        None => Err(refused(Kind::Foreign, path, FOREIGN)),
    }
}

fn newer_schema(path: &Path, newer: i64) -> ConnectError {
    let text = format!(
        "was written by a newer version of slack-installs (schema {newer}); update \
         slack-installs in this app"
    );
    refused(Kind::Newer, path, &text)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        // A file that was deleted must not be created again, empty and readable by all users.
        .create_if_missing(false)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging()
}

/// A connection to a local file does not go stale, so its age and idle time have no limit.
fn pool(
    options: SqliteConnectOptions,
    size: u32,
    first: SqliteConnection,
) -> Arc<Pool<SqliteConnectOptions>> {
    let limits = Limits {
        size,
        patience: ACQUIRE_TIMEOUT,
        idle: Duration::MAX,
        age: Duration::MAX,
    };
    let pool = Pool::new(options, limits);
    pool.add(first);
    pool
}

/// Switches to a write-ahead log. Returns `false` if the file system does not support it.
async fn keeps_log(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        match sqlx::query_scalar::<_, String>(KEEP_LOG)
            .fetch_one(&mut *connection)
            .await
        {
            Ok(mode) => return Ok(mode == "wal"),
            // SQLite's own timeout does not apply here, because this connection holds a lock while
            // it waits for another.
            Err(error) if primary_code(&error) == Some(BUSY) && Instant::now() < deadline => {
                sleep(BUSY_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Makes the file, and SQLite's files next to it, accessible to the owner only.
#[cfg(unix)]
fn tighten(path: &Path) -> io::Result<()> {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let mode = match fs::metadata(&name) {
            Ok(metadata) => metadata.permissions().mode(),
            // SQLite creates it later, with the mode of the database.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if mode & 0o077 != 0 {
            match fs::set_permissions(&name, Permissions::from_mode(PRIVATE)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(not(unix))]
fn tighten(_: &Path) -> io::Result<()> {
    Ok(())
}

fn failed(path: &Path, error: sqlx::Error) -> ConnectError {
    match primary_code(&error) {
        Some(NOT_A_DATABASE) => refused(Kind::Foreign, path, FOREIGN),
        Some(READ_ONLY | CANNOT_OPEN) => refused(Kind::ReadOnly, path, WRITE_PROTECTED),
        _ => refused(
            Kind::Unavailable,
            path,
            "cannot be opened as a SQLite database",
        )
        .with_source(error),
    }
}

/// Returns an error for a file that cannot be created, or whose mode cannot be changed.
fn unusable(path: &Path, error: io::Error) -> ConnectError {
    let text = "cannot be created or made private; its directory must exist, and this process \
                must be allowed to write there";
    refused(Kind::Invalid, path, text).with_source(error)
}

/// Returns an error about the file. `text` continues a sentence that begins with the path.
fn refused(kind: Kind, path: &Path, text: &str) -> ConnectError {
    ConnectError::new(kind, format!("{} {text}", path.display()))
}

/// Commits wait for the one writer, each for some milliseconds. After this time, an error serves
/// the caller better.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long SQLite waits for the lock of another process, whose commits take milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause between two attempts to switch the journal mode: about the time that creating a schema
/// takes.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

const FOREIGN: &str = "is not a database of slack-installs; choose another path";

const KEEP_LOG: &str = "PRAGMA journal_mode = WAL";

const NOT_A_FILE: &str =
    "is not a regular file; choose a file's path, or use MemoryBackend to keep rows in memory";

#[cfg(unix)]
const PRIVATE: u32 = 0o600;

/// The threads that read, one for each connection. A read takes tens of microseconds, so four are
/// enough for any bot.
const READERS: u32 = 4;

/// The size of the smallest database that is not empty: one page, in bytes.
const SMALLEST: u64 = 512;

const WRITE_PROTECTED: &str = "cannot be written to; give this process write access to the file \
     and to its directory";
