//! How one call runs: its connection, its transaction, its timeouts, and its retries.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use tokio::time::timeout;

use super::options::{ON_PRIMARY, Opens, PostgresOptions};
use super::{code, failed};
use crate::backend::Error;
use crate::backend::sql::{Limits, Pool, Source};

/// Runs calls on connections of a pool.
pub(super) struct Calls {
    options: PostgresOptions,
    pool: Arc<Pool<Server>>,
}

impl Calls {
    /// Creates the pool without connecting. The first call connects.
    pub(super) fn new(connect: PgConnectOptions, options: PostgresOptions) -> Self {
        let limits = Limits {
            size: options.pool_size,
            patience: options.acquire_timeout,
            idle: IDLE_TIMEOUT,
            age: MAX_AGE,
        };
        let server = Server {
            connect,
            breaks: Breaks::default(),
        };
        Self {
            options,
            pool: Pool::new(server, limits),
        }
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    /// Returns the rows of a query that writes nothing. If the connection broke, retries once on
    /// another.
    pub(super) async fn read<'q>(
        &self,
        opens: Opens<'_>,
        query: impl Fn() -> Query<'q, Postgres, PgArguments> + Send + Sync,
    ) -> Result<Vec<PgRow>, Error> {
        let outcome = match self.once(opens, query()).await? {
            Err(error) if is_broken(&error) || is_aborted(&error) => {
                self.once(opens, query()).await?
            }
            other => other,
        };
        outcome.map_err(failed)
    }

    /// Returns the rows of a query that writes. Retries once if the server says that nothing was
    /// written.
    pub(super) async fn write<'q>(
        &self,
        opens: Opens<'_>,
        query: impl Fn() -> Query<'q, Postgres, PgArguments> + Send + Sync,
    ) -> Result<Vec<PgRow>, Error> {
        let outcome = match self.once(opens, query()).await? {
            Err(error) if is_aborted(&error) => self.once(opens, query()).await?,
            other => other,
        };
        outcome.map_err(failed)
    }

    /// Runs the query once. The outer error means that there was no connection; the inner one is
    /// the database's.
    async fn once(
        &self,
        opens: Opens<'_>,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Result<Vec<PgRow>, sqlx::Error>, Error> {
        let query = query.persistent(!self.options.transaction_pooler);
        let begin = self.options.begin(opens);
        let mut connection = self.pool.acquire().await?;
        let patience = self.options.statement_timeout + GRACE;
        let outcome = match timeout(patience, run(&mut connection, begin, query)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        };
        match &outcome {
            Ok(_) => connection.keep(),
            Err(error) if is_broken(error) || is_timeout(error) => {
                self.pool.source().breaks.note();
            }
            Err(_) => {}
        }
        Ok(outcome)
    }
}

struct Server {
    connect: PgConnectOptions,
    breaks: Breaks,
}

impl Source for Server {
    type Connection = PgConnection;

    async fn open(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.connect.connect().await?;
        // After a failover, a host name may resolve to the old primary for a while. A server
        // becomes a standby only by a restart, so a direct connection needs no second check. A
        // pooler's connection does, so each call through a pooler begins with this check.
        connection.execute(ON_PRIMARY).await?;
        Ok(connection)
    }

    fn is_suspect(&self, idle_for: Duration) -> bool {
        self.breaks.suspect(idle_for)
    }
}

/// Runs a query, in a transaction if `begin` has the statements that begin it.
async fn run(
    connection: &mut PgConnection,
    begin: Option<String>,
    query: Query<'_, Postgres, PgArguments>,
) -> Result<Vec<PgRow>, sqlx::Error> {
    match begin {
        None => query.fetch_all(connection).await,
        Some(begin) => Box::pin(run_in_transaction(connection, begin, query)).await,
    }
}

async fn run_in_transaction(
    connection: &mut PgConnection,
    begin: String,
    query: Query<'_, Postgres, PgArguments>,
) -> Result<Vec<PgRow>, sqlx::Error> {
    // The text consists of our own statements, numbers, a checked name and hex digits.
    let mut transaction = connection.begin_with(AssertSqlSafe(begin)).await?;
    let rows = query.fetch_all(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(rows)
}

/// When a connection last broke. Connections that were idle at that time may be broken too.
#[derive(Default)]
struct Breaks(Mutex<Option<Instant>>);

impl Breaks {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Returns whether an idle connection must be tested before it is used.
    fn suspect(&self, idle_for: Duration) -> bool {
        let broke = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle_for >= FRESH || broke.is_some_and(|broke| broke.elapsed() <= idle_for)
    }
}

/// Returns whether the connection is lost, or the server is shutting down or has become a standby.
fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() != io::ErrorKind::TimedOut,
        sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) => true,
        other => code(other).is_some_and(|code| code.starts_with("57P") || code == READ_ONLY),
    }
}

fn is_timeout(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}

/// Returns whether the server rolled the transaction back because of concurrent transactions.
fn is_aborted(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| ABORTED.contains(&&*code))
}

/// `serialization_failure` and `deadlock_detected`.
const ABORTED: [&str; 2] = ["40001", "40P01"];

/// A connection that completed a call less than this time ago is not tested before its next use.
const FRESH: Duration = Duration::from_secs(1);

/// Firewalls and load balancers drop an idle connection after four minutes or more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3 * 60);

/// Time for the round trip, and for a commit that waits for a synchronous standby, because no
/// timeout of the server ends that wait.
const GRACE: Duration = Duration::from_secs(2);

/// The server's memory for a connection grows with its age.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);

/// `read_only_sql_transaction`: the former primary is now a standby.
const READ_ONLY: &str = "25006";
