//! From a path to connections: the file and its mode, the settings, the schema.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteSynchronous};
use thiserror::Error;
use tokio::time::{Instant, sleep};

use super::schema::{self, Refusal};
use super::{BUSY, CANNOT_OPEN, NOT_A_DATABASE, READ_ONLY, primary_code};
use crate::backend::sql::{Limits, Pool};

/// Why a file could not be opened as a database.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SqliteOpenError {
    /// SQLite or its driver failed.
    #[error("{} cannot be opened as a database: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There can be no such file: its directory is missing, say, or must not be written to.
    #[error("{} cannot be created or made private: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a database of another program, or no database at all.
    #[error("{} is not a database of slack-installs; choose another path", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file system cannot do what a write-ahead log needs.
    #[error("{} is where SQLite cannot keep a write-ahead log; use a local disk", path.display())]
    NetworkShare {
        /// The file.
        path: PathBuf,
    },
    /// A newer version of this crate wrote it.
    #[error(
        "{} was written by a newer version of slack-installs (schema {found}); update it here too",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema's version.
        found: i64,
    },
    /// It is a directory, a device, or SQLite's name for memory.
    #[error("{} does not name a regular file (for memory there is MemoryBackend)", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file or its directory must not be written to.
    #[error("{} or its directory must not be written to by this process", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
}

/// Makes the file, readable by its owner only, unless it is there. Answers its full path.
///
/// It never opens a file that is there: closing it again would drop the locks that SQLite holds
/// on it in this process.
pub(super) fn create(path: &Path) -> Result<PathBuf, SqliteOpenError> {
    // While the file is made its descriptor is open, so nobody may open the database meanwhile.
    static CREATING: Mutex<()> = Mutex::new(());
    let _creating = CREATING.lock().unwrap_or_else(PoisonError::into_inner);

    if path == Path::new(":memory:") {
        return Err(SqliteOpenError::NotAFile { path: path.into() });
    }
    let file = |source| SqliteOpenError::File {
        path: path.into(),
        source,
    };
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
        return Err(SqliteOpenError::NotAFile { path: path.into() });
    }
    // SQLite takes a shorter file for an empty one, and would write over what is in it.
    if (1..SMALLEST).contains(&metadata.len()) {
        return Err(SqliteOpenError::Foreign { path: path.into() });
    }
    Ok(real)
}

/// The connection that writes, to a file that is ours, private and up to date.
pub(super) async fn writer(path: &Path) -> Result<Pool<SqliteConnectOptions>, SqliteOpenError> {
    let failed = |error| failed(path, error);
    let options = options(path)
        .synchronous(SqliteSynchronous::Full)
        .pragma("secure_delete", "ON");
    let mut connection = options.connect().await.map_err(failed)?;
    match schema::migrate(&mut connection).await {
        Ok(()) => {}
        Err(Refusal::Failed(error)) => return Err(failed(error)),
        Err(Refusal::Foreign) => return Err(SqliteOpenError::Foreign { path: path.into() }),
        Err(Refusal::Newer(found)) => {
            return Err(SqliteOpenError::Newer {
                path: path.into(),
                found,
            });
        }
    }
    tighten(path).map_err(|source| SqliteOpenError::File {
        path: path.into(),
        source,
    })?;
    if !keeps_log(&mut connection).await.map_err(failed)? {
        return Err(SqliteOpenError::NetworkShare { path: path.into() });
    }
    Ok(pool(options, 1, connection))
}

/// The connections that read.
pub(super) async fn readers(path: &Path) -> Result<Pool<SqliteConnectOptions>, SqliteOpenError> {
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

fn failed(path: &Path, error: sqlx::Error) -> SqliteOpenError {
    let path = path.into();
    match primary_code(&error) {
        Some(NOT_A_DATABASE) => SqliteOpenError::Foreign { path },
        Some(READ_ONLY | CANNOT_OPEN) => SqliteOpenError::ReadOnly { path },
        _ => SqliteOpenError::Database {
            path,
            source: error.into(),
        },
    }
}

/// Commits queue for the one writer, each for some milliseconds; a caller that waits longer than
/// this is better told.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// For how long SQLite waits for the lock of another process, whose commits take milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two tries to switch the journal's mode: about the time that making a schema takes.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

const KEEP_LOG: &str = "PRAGMA journal_mode = WAL";

#[cfg(unix)]
const PRIVATE: u32 = 0o600;

/// Threads that read, since each connection has its own. A read takes tens of microseconds, so
/// four keep up with any bot.
const READERS: u32 = 4;

/// The smallest database that is not empty, in bytes: one page.
const SMALLEST: u64 = 512;
