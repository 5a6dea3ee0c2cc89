//! From a path to connections: the file and its mode, the settings, the schema.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteSynchronous};
use tokio::time::{Instant, sleep};

use super::schema;
use super::{BUSY, CANNOT_OPEN, NOT_A_DATABASE, READ_ONLY, primary_code};
use crate::backend::sql::{Limits, Pool};
use crate::backend::{ConnectError, ConnectErrorKind as Kind};

/// Makes the file, readable by its owner only, unless it is there. Answers its full path.
///
/// It never opens a file that is there: closing it again would drop the locks that SQLite holds
/// on it in this process.
pub(super) fn create(path: &Path) -> Result<PathBuf, ConnectError> {
    // While the file is made its descriptor is open, so nobody may open the database meanwhile.
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
    // SQLite keeps its other files beside the real file, wherever links lead to it from.
    let real = path.canonicalize().map_err(file)?;
    let metadata = real.metadata().map_err(file)?;
    if !metadata.is_file() {
        return Err(refused(Kind::Invalid, path, NOT_A_FILE));
    }
    // SQLite takes a shorter file for an empty one, and would write over what is in it.
    if (1..SMALLEST).contains(&metadata.len()) {
        return Err(refused(Kind::Foreign, path, FOREIGN));
    }
    Ok(real)
}

/// The connection that writes, to a file that is ours, private and up to date.
pub(super) async fn writer(path: &Path) -> Result<Pool<SqliteConnectOptions>, ConnectError> {
    let failed = |error| failed(path, error);
    let options = options(path)
        .synchronous(SqliteSynchronous::Full)
        .pragma("secure_delete", "ON");
    let mut connection = options.connect().await.map_err(failed)?;
    match schema::migrate(&mut connection).await.map_err(failed)? {
        Some(schema::NEWEST) => {}
        Some(newer) => {
            let text = format!(
                "was written by a newer version of slack-installs (schema {newer}); update it here \
                 too"
            );
            return Err(refused(Kind::Newer, path, &text));
        }
        None => return Err(refused(Kind::Foreign, path, FOREIGN)),
    }
    tighten(path).map_err(|error| unusable(path, error))?;
    if !keeps_log(&mut connection).await.map_err(failed)? {
        let text = "is where SQLite cannot keep a write-ahead log; use a local disk";
        return Err(refused(Kind::Misconfigured, path, text));
    }
    Ok(pool(options, 1, connection))
}

/// The connections that read.
pub(super) async fn readers(path: &Path) -> Result<Pool<SqliteConnectOptions>, ConnectError> {
    let options = options(path).pragma("query_only", "ON");
    let connection = options.connect().await;
    let connection = connection.map_err(|error| failed(path, error))?;
    Ok(pool(options, READERS, connection))
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        // A file that vanished must not come back empty, and readable by all.
        .create_if_missing(false)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging()
}

/// A connection to a local file does not go stale, so it may be as old and as idle as it likes.
fn pool(
    options: SqliteConnectOptions,
    size: u32,
    first: SqliteConnection,
) -> Pool<SqliteConnectOptions> {
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

/// Switches to a write-ahead log. `false` if the file system cannot have one.
async fn keeps_log(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        match sqlx::query_scalar::<_, String>(KEEP_LOG)
            .fetch_one(&mut *connection)
            .await
        {
            Ok(mode) => return Ok(mode == "wal"),
            // SQLite's own timeout does not apply here, where a lock is held and another wanted.
            Err(error) if primary_code(&error) == Some(BUSY) && Instant::now() < deadline => {
                sleep(BUSY_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Closes the file, and what SQLite keeps beside it, to everybody but the owner.
#[cfg(unix)]
fn tighten(path: &Path) -> io::Result<()> {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let mode = match fs::metadata(&name) {
            Ok(metadata) => metadata.permissions().mode(),
            // SQLite makes it later, with the mode of the database.
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
        _ => refused(Kind::Unavailable, path, "cannot be opened as a database").with_source(error),
    }
}

/// The file cannot be made, or its mode cannot be changed.
fn unusable(path: &Path, error: io::Error) -> ConnectError {
    let text = "cannot be created or made private; its directory must exist, and this process \
                must be allowed to write there";
    refused(Kind::Invalid, path, text).with_source(error)
}

/// `text` is the end of a sentence about the file.
fn refused(kind: Kind, path: &Path, text: &str) -> ConnectError {
    ConnectError::new(kind, format!("{} {text}", path.display()))
}

/// Commits queue for the one writer, each for some milliseconds; a caller that waits longer than
/// this is better told.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// For how long SQLite waits for the lock of another process, whose commits take milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two tries to switch the journal's mode: about the time that making a schema takes.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

const FOREIGN: &str = "is not a database of slack-installs; choose another path";

const KEEP_LOG: &str = "PRAGMA journal_mode = WAL";

const NOT_A_FILE: &str = "does not name a regular file (for memory there is MemoryBackend)";

#[cfg(unix)]
const PRIVATE: u32 = 0o600;

/// Threads that read, since each connection has its own. A read takes tens of microseconds, so
/// four keep up with any bot.
const READERS: u32 = 4;

/// The smallest database that is not empty, in bytes: one page.
const SMALLEST: u64 = 512;

const WRITE_PROTECTED: &str =
    "cannot be written to: this process needs write access to the file and its directory";
