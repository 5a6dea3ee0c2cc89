//! How one call runs: its connection, its transaction, its time, and what follows a failure.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::pool::{PoolConnection, PoolConnectionMetadata};
use sqlx::postgres::{
    PgArguments, PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow, Postgres,
};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use tokio::time::timeout;

use super::code;
use super::options::{ON_PRIMARY, PostgresOptions, Scope};

/// Runs calls on connections of a pool.
pub(super) struct Calls {
    options: PostgresOptions,
    pool: PgPool,
    breaks: Breaks,
}

impl Calls {
    /// Connects when the first call needs it.
    pub(super) fn new(connect: PgConnectOptions, options: PostgresOptions) -> Self {
        let breaks = Breaks::default();
        let seen = breaks.clone();
        let pool = PgPoolOptions::new()
            .max_connections(options.pool_size)
            .acquire_timeout(options.acquire_timeout)
            .test_before_acquire(false)
            .before_acquire(move |connection, idle| {
                let suspect = seen.suspect(&idle);
                let is_silent = seen.is_silent(&idle);
                let seen = seen.clone();
                Box::pin(async move {
                    if is_silent {
                        return Err(io::Error::from(io::ErrorKind::TimedOut).into());
                    }
                    if suspect {
                        let pinged = timeout(PING, connection.ping()).await;
                        pinged.unwrap_or_else(|_| {
                            seen.note_silence();
                            Err(io::Error::from(io::ErrorKind::TimedOut).into())
                        })?;
                    }
                    Ok(true)
                })
            })
            .idle_timeout(IDLE_TIMEOUT)
            // A name that followed a failover may lead to the old primary for a while. A server
            // becomes a standby only by a restart, so its connections need no second look; but
            // a pooler's do, and each call through one begins with that.
            .after_connect(|connection, _| {
                Box::pin(async { connection.execute(ON_PRIMARY).await.map(drop) })
            })
            .connect_lazy_with(connect);
        Self {
            options,
            pool,
            breaks,
        }
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    /// The rows of a query that writes nothing. Once more on another connection if one broke.
    pub(super) async fn read<'q>(
        &self,
        scope: Scope<'_>,
        query: impl Fn() -> Query<'q, Postgres, PgArguments> + Send + Sync,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        match self.once(scope, query()).await {
            Err(error) if is_broken(&error) || is_aborted(&error) => {
                self.once(scope, query()).await
            }
            other => other,
        }
    }

    /// The rows of a query that writes. Once more only if the server says that nothing happened.
    pub(super) async fn write<'q>(
        &self,
        scope: Scope<'_>,
        query: impl Fn() -> Query<'q, Postgres, PgArguments> + Send + Sync,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        match self.once(scope, query()).await {
            Err(error) if is_aborted(&error) => self.once(scope, query()).await,
            other => other,
        }
    }

    async fn once(
        &self,
        scope: Scope<'_>,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let query = query.persistent(!self.options.transaction_pooler);
        let begin = self.options.begin(scope);
        let mut lease = Lease {
            connection: self.pool.acquire().await?,
            finished: false,
        };
        let patience = self.options.statement_timeout + GRACE;
        let outcome = match timeout(patience, run(&mut lease.connection, begin, query)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        };
        match &outcome {
            Ok(_) => lease.finished = true,
            Err(error) if is_broken(error) || is_timeout(error) => self.breaks.note(),
            Err(_) => {}
        }
        outcome
    }
}

/// Runs a query in a transaction that begins like this, or by itself.
async fn run(
    connection: &mut PgConnection,
    begin: Option<String>,
    query: Query<'_, Postgres, PgArguments>,
) -> Result<Vec<PgRow>, sqlx::Error> {
    let Some(begin) = begin else {
        return query.fetch_all(connection).await;
    };
    // Made of our own text, numbers, a checked name and hex digits.
    let mut transaction = connection.begin_with(AssertSqlSafe(begin)).await?;
    let rows = query.fetch_all(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(rows)
}

/// A connection that goes back to the pool only after a call that came to its end.
///
/// One that was left in the middle, by an error or by a caller that was dropped, may be in a
/// transaction, or may never answer again; and the pool would wait for that answer before it gave
/// its place away. Closing it rolls back.
struct Lease {
    connection: PoolConnection<Postgres>,
    finished: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.finished {
            self.connection.close_on_drop();
        }
    }
}

/// When a connection last broke. Those that were idle at that time may be broken as well.
#[derive(Clone, Default)]
struct Breaks {
    broke: Arc<Mutex<Option<Instant>>>,
    /// When an idle connection was last found to answer nothing. Whoever dropped it without a
    /// word, a firewall or a failed machine, has dropped those that were idle at that time too.
    silent: Arc<Mutex<Option<Instant>>>,
}

impl Breaks {
    fn note_silence(&self) {
        *self.silent.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether an idle connection is as good as dead: trying each out would take too long.
    fn is_silent(&self, idle: &PoolConnectionMetadata) -> bool {
        let silent = *self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.is_some_and(|silent| silent.elapsed() <= idle.idle_for)
    }

    fn note(&self) {
        *self.broke.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether an idle connection needs to be tried out before it is used.
    fn suspect(&self, idle: &PoolConnectionMetadata) -> bool {
        let broke = *self.broke.lock().unwrap_or_else(PoisonError::into_inner);
        idle.idle_for >= FRESH || broke.is_some_and(|broke| broke.elapsed() <= idle.idle_for)
    }
}

/// Whether the connection is lost, or the server is going down or cannot do its work any more.
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

/// Whether the server undid the transaction because of others, who are done by now.
fn is_aborted(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| ABORTED.contains(&&*code))
}

/// `serialization_failure` and `deadlock_detected`.
const ABORTED: [&str; 2] = ["40001", "40P01"];

/// The pool tries a connection out when it comes back, so a busy one was just seen to work.
const FRESH: Duration = Duration::from_secs(1);

/// Firewalls and load balancers forget a silent connection after four minutes or more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3 * 60);

/// An answer takes a round trip.
const PING: Duration = Duration::from_secs(1);

/// For the way there and back, and for a commit that waits for a synchronous standby, which no
/// timeout of the server's ends.
const GRACE: Duration = Duration::from_secs(2);

/// `read_only_sql_transaction`: what was the primary is a standby now.
const READ_ONLY: &str = "25006";
