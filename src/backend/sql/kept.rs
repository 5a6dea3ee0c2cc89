//! Connections that stay out of sqlx's pool between calls.
//!
//! The pool tries a connection out each time that it comes back: after every call another round
//! trip to Postgres, or another turn of an SQLite connection's thread. A call that came to its
//! end has just seen its connection work. So the pool makes connections, counts and closes them,
//! and they wait here for the next call.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::{Connection as _, Database, Error, Pool};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// The connections of a pool that nobody else takes from.
pub(in crate::backend) struct Kept<DB: Database> {
    pool: Pool<DB>,
    /// One for each connection that there may be. Callers get them in the order they came in.
    places: Semaphore,
    /// The one that was used last is the next to be used, so that those too many grow old.
    idle: Mutex<Vec<Idle<DB>>>,
}

struct Idle<DB: Database> {
    connection: PoolConnection<DB>,
    made: Instant,
    since: Instant,
}

impl<DB: Database> Kept<DB> {
    pub(in crate::backend) fn new(pool: Pool<DB>) -> Self {
        let most = pool.options().get_max_connections();
        Self {
            pool,
            places: Semaphore::new(usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS)),
            idle: Mutex::default(),
        }
    }

    /// A connection for the length of one call. One that was idle for so long that it is
    /// `suspect` is tried out first.
    pub(in crate::backend) async fn acquire(
        &self,
        suspect: impl Fn(Duration) -> bool,
    ) -> Result<Lease<'_, DB>, Error> {
        let patience = self.pool.options().get_acquire_timeout();
        let found = timeout(patience, self.find(suspect)).await;
        found.unwrap_or(Err(Error::PoolTimedOut))
    }

    /// Waits for the calls in progress and closes all connections.
    pub(in crate::backend) async fn close(&self) {
        self.places.close();
        // A connection that is given back from now on is not kept.
        let idle = std::mem::take(&mut *self.idle());
        drop(idle);
        self.pool.close().await;
    }

    async fn find(&self, suspect: impl Fn(Duration) -> bool) -> Result<Lease<'_, DB>, Error> {
        let place = self.places.acquire().await;
        let mut lease = Lease {
            kept: self,
            connection: None,
            made: Instant::now(),
            _place: place.map_err(|_| Error::PoolClosed)?,
        };
        while let Some(idle) = self.pop() {
            lease.made = idle.made;
            let connection = lease.connection.insert(idle.connection);
            if !suspect(idle.since.elapsed()) {
                return Ok(lease);
            }
            let asked = Instant::now();
            match timeout(PING, connection.ping()).await {
                Ok(Ok(())) => return Ok(lease),
                Ok(Err(_)) => {}
                // Whoever dropped it without a word, a firewall or a failed machine, has dropped
                // those that were idle with it. To try each out would take too long.
                Err(_) => self.forget(asked),
            }
            lease.discard();
        }
        lease.made = Instant::now();
        // Boxed, as it is kilobytes that every call would carry along, and seldom needed.
        lease.connection = Some(Box::pin(self.pool.acquire()).await?);
        Ok(lease)
    }

    fn pop(&self) -> Option<Idle<DB>> {
        self.idle().pop()
    }

    /// Closes the connections that were idle then.
    fn forget(&self, then: Instant) {
        let mut idle = self.idle();
        let (kept, dead) = idle.drain(..).partition(|idle| idle.since > then);
        *idle = kept;
        let dead: Vec<Idle<DB>> = dead;
        for mut idle in dead {
            idle.connection.close_on_drop();
        }
    }

    fn push(&self, given_back: Idle<DB>) {
        let options = self.pool.options();
        let is_old = |age: Duration, most: Option<Duration>| most.is_some_and(|most| age >= most);
        let mut idle = self.idle();
        if self.places.is_closed() || is_old(given_back.made.elapsed(), options.get_max_lifetime())
        {
            return;
        }
        idle.push(given_back);
        let rested = idle[0].since.elapsed();
        if is_old(rested, options.get_idle_timeout()) {
            let mut longest = idle.remove(0).connection;
            longest.close_on_drop();
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle<DB>>> {
        // Nothing panics while it holds the lock.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<DB: Database> Drop for Kept<DB> {
    fn drop(&mut self) {
        // Going back to the pool takes a runtime, which may have ended.
        for idle in self.idle().drain(..) {
            drop(idle.connection.detach());
        }
    }
}

/// A connection for one call, that is kept only if the call came to its end.
///
/// One that was left in the middle, by an error or by a caller that was dropped, may be in a
/// transaction, or may never answer again. Closing it rolls back.
pub(in crate::backend) struct Lease<'a, DB: Database> {
    kept: &'a Kept<DB>,
    /// Always there once the lease is given out.
    connection: Option<PoolConnection<DB>>,
    made: Instant,
    _place: SemaphorePermit<'a>,
}

impl<DB: Database> Lease<'_, DB> {
    /// The call came to its end: the next may use the connection.
    pub(in crate::backend) fn keep(mut self) {
        if let Some(connection) = self.connection.take() {
            self.kept.push(Idle {
                connection,
                made: self.made,
                since: Instant::now(),
            });
        }
    }

    fn discard(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.close_on_drop();
        }
    }
}

impl<DB: Database> Drop for Lease<'_, DB> {
    fn drop(&mut self) {
        self.discard();
    }
}

impl<DB: Database> Deref for Lease<'_, DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        self.connection.as_ref().expect("taken only at the end")
    }
}

impl<DB: Database> DerefMut for Lease<'_, DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        self.connection.as_mut().expect("taken only at the end")
    }
}

/// An answer takes a round trip.
const PING: Duration = Duration::from_secs(1);

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use sqlx::sqlite::{Sqlite, SqlitePoolOptions};

    use super::*;

    #[tokio::test]
    async fn a_call_that_came_to_its_end_leaves_its_connection_to_the_next() {
        let kept = kept(one());
        mark(&kept).await.keep();
        assert!(is_marked(&kept).await);
    }

    #[tokio::test]
    async fn a_call_that_was_left_in_the_middle_does_not() {
        let kept = kept(one());
        drop(mark(&kept).await);
        assert!(!is_marked(&kept).await);
    }

    #[tokio::test]
    async fn a_connection_that_is_too_old_is_not_kept() {
        let kept = kept(one().max_lifetime(Duration::ZERO));
        mark(&kept).await.keep();
        assert!(!is_marked(&kept).await);
    }

    #[tokio::test]
    async fn a_connection_that_was_idle_for_too_long_is_closed() {
        let kept = kept(one().idle_timeout(Duration::ZERO));
        mark(&kept).await.keep();
        assert!(!is_marked(&kept).await);
    }

    #[tokio::test]
    async fn a_connection_that_is_suspect_and_works_is_used() {
        let kept = kept(one());
        mark(&kept).await.keep();
        let lease = kept.acquire(|_| true).await.expect("it works");
        lease.keep();
        assert!(is_marked(&kept).await);
    }

    #[tokio::test]
    async fn no_more_connections_are_given_out_than_the_pool_has() {
        let kept = kept(one().acquire_timeout(Duration::from_millis(20)));
        let lease = mark(&kept).await;
        let refused = kept.acquire(|_| false).await;
        assert!(matches!(refused, Err(Error::PoolTimedOut)));
        lease.keep();
        assert!(is_marked(&kept).await);
    }

    #[tokio::test]
    async fn closing_waits_for_the_call_in_progress_and_keeps_nothing() {
        let kept = kept(one());
        let lease = mark(&kept).await;
        let mut closing = Box::pin(kept.close());
        let closed = timeout(Duration::from_millis(20), &mut closing).await;
        assert!(closed.is_err(), "a call is in progress");
        lease.keep();
        closing.await;
        assert!(kept.idle().is_empty());
        let refused = kept.acquire(|_| false).await;
        assert!(matches!(refused, Err(Error::PoolClosed)));
    }

    #[test]
    fn connections_can_be_dropped_after_the_runtime_has_ended() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        let kept = runtime.block_on(async {
            let kept = kept(one());
            mark(&kept).await.keep();
            kept
        });
        drop(runtime);
        drop(kept);
    }

    fn one() -> SqlitePoolOptions {
        SqlitePoolOptions::new().max_connections(1)
    }

    fn kept(options: SqlitePoolOptions) -> Kept<Sqlite> {
        Kept::new(options.connect_lazy("sqlite::memory:").expect("a URL"))
    }

    /// Marks a connection by a table that no other has.
    async fn mark(kept: &Kept<Sqlite>) -> Lease<'_, Sqlite> {
        let mut lease = kept.acquire(|_| false).await.expect("there is a place");
        let marked = sqlx::query("CREATE TABLE mark (id)").execute(&mut *lease);
        marked.await.expect("it is a database of its own");
        lease
    }

    async fn is_marked(kept: &Kept<Sqlite>) -> bool {
        let mut lease = kept.acquire(|_| false).await.expect("there is a place");
        let marked = sqlx::query("SELECT * FROM mark").execute(&mut *lease).await;
        lease.keep();
        marked.is_ok()
    }
}
