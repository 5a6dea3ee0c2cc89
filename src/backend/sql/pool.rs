//! The connections of a backend to its SQL database, which all its calls share.
//!
//! It replaces sqlx's pool, for two reasons. That pool makes an extra round trip after each call.
//! And a call that has begun to connect does not take a returned connection, even if the server
//! refuses new ones.

use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::Connection;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{sleep, timeout};

use crate::backend::Error;

/// Opens the connections of a pool.
pub(in crate::backend) trait Source: Send + Sync {
    type Connection: Connection + 'static;

    fn open(&self) -> impl Future<Output = Result<Self::Connection, sqlx::Error>> + Send;

    /// Returns whether a connection that was idle this long must be tested before a call uses it.
    fn is_suspect(&self, idle_for: Duration) -> bool;
}

/// The limits of a pool.
pub(in crate::backend) struct Limits {
    /// The most connections.
    pub(in crate::backend) size: u32,
    /// How long a call waits for a connection.
    pub(in crate::backend) patience: Duration,
    /// A connection that is idle for longer is closed.
    pub(in crate::backend) idle: Duration,
    /// A connection that is older is closed after its call.
    pub(in crate::backend) age: Duration,
}

pub(in crate::backend) struct Pool<S: Source> {
    source: S,
    limits: Limits,
    /// One permit for each call that may use or open a connection. Calls get permits in the order
    /// in which they arrive.
    places: Semaphore,
    /// The last connection is used next, so that surplus ones stay idle and are closed.
    idle: Mutex<Vec<Held<S::Connection>>>,
    /// Wakes a call that has a permit, but no connection.
    given_back: Notify,
    /// Why the last connection could not be opened; cleared when one is opened.
    refused: Mutex<Option<Arc<sqlx::Error>>>,
}

impl<S: Source> Pool<S> {
    pub(in crate::backend) fn new(source: S, limits: Limits) -> Self {
        Self {
            source,
            places: Semaphore::new(limits.size as usize),
            limits,
            idle: Mutex::default(),
            given_back: Notify::new(),
            refused: Mutex::default(),
        }
    }

    #[cfg(feature = "postgres")]
    pub(in crate::backend) fn source(&self) -> &S {
        &self.source
    }

    /// Adds a connection that was opened elsewhere, before the first call.
    #[cfg(feature = "sqlite")]
    pub(in crate::backend) fn add(&self, connection: S::Connection) {
        self.give_back(Held::new(connection));
    }

    /// Returns a connection for one call: an idle one, or a new one. If the server refuses a new
    /// connection, waits until another call returns one or the server accepts one.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if the time is up, with the server's last error as its source, or if
    /// the pool is closed.
    pub(in crate::backend) async fn acquire(&self) -> Result<Lease<'_, S>, Error> {
        let found = timeout(self.limits.patience, self.find()).await;
        let found = found.unwrap_or_else(|_| {
            let refused = locked(&self.refused).clone();
            Err(refused.map_or(NoConnection::Busy, NoConnection::Refused))
        });
        found.map_err(|error| Error::Unavailable(error.into()))
    }

    /// Waits for the calls in progress and closes all connections.
    pub(in crate::backend) async fn close(&self) {
        let all = self.places.acquire_many(self.limits.size).await;
        self.places.close();
        drop(all);
        let idle = std::mem::take(&mut *self.idle());
        for held in idle {
            // The connection is closed in either case.
            let _ = held.connection.close().await;
        }
    }

    async fn find(&self) -> Result<Lease<'_, S>, NoConnection> {
        let place = self.places.acquire().await;
        let place = place.map_err(|_| NoConnection::Closed)?;
        let held = match self.working().await {
            Some(held) => held,
            // Boxed, because the future has kilobytes that every call would carry, and is rarely
            // needed.
            None => Box::pin(self.open()).await,
        };
        Ok(Lease {
            pool: self,
            held,
            place,
        })
    }

    /// Returns an idle connection that works.
    async fn working(&self) -> Option<Held<S::Connection>> {
        loop {
            let mut held = self.idle().pop()?;
            if !self.source.is_suspect(held.since.elapsed()) {
                return Some(held);
            }
            let asked = Instant::now();
            match timeout(PING, held.connection.ping()).await {
                Ok(Ok(())) => return Some(held),
                Ok(Err(_)) => {}
                // A firewall or a failed machine that dropped this connection silently has also
                // dropped those that were idle at that time. Testing each of them would take too
                // long.
                Err(_) => self.idle().retain(|idle| idle.since > asked),
            }
        }
    }

    /// Returns a new connection, or one that another call returns before a new one can be opened.
    async fn open(&self) -> Held<S::Connection> {
        loop {
            let opened = tokio::select! {
                opened = self.source.open() => Some(opened),
                () = async { sleep(SLOW).await; self.some_idle().await } => None,
            };
            match opened {
                Some(Ok(connection)) => {
                    *locked(&self.refused) = None;
                    return Held::new(connection);
                }
                Some(Err(error)) => {
                    *locked(&self.refused) = Some(Arc::new(error));
                    let _ = timeout(PAUSE, self.some_idle()).await;
                }
                None => {}
            }
            if let Some(held) = self.working().await {
                return held;
            }
        }
    }

    /// Waits until a connection is idle.
    async fn some_idle(&self) {
        loop {
            let mut given_back = pin!(self.given_back.notified());
            // Enabled before the check, so that no connection is missed that returns in between.
            given_back.as_mut().enable();
            if !self.idle().is_empty() {
                return;
            }
            given_back.await;
        }
    }

    fn give_back(&self, held: Held<S::Connection>) {
        if held.made.elapsed() >= self.limits.age {
            close(held);
            return;
        }
        let mut idle = self.idle();
        idle.push(Held {
            since: Instant::now(),
            ..held
        });
        let too_long = idle[0].since.elapsed() >= self.limits.idle;
        let longest = too_long.then(|| idle.remove(0));
        drop(idle);
        self.given_back.notify_one();
        if let Some(longest) = longest {
            close(longest);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Held<S::Connection>>> {
        locked(&self.idle)
    }
}

/// Locks a mutex. No code panics while it holds one of these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes a connection properly, because the server would otherwise log a lost connection.
fn close<C: Connection + 'static>(held: Held<C>) {
    tokio::spawn(held.connection.close());
}

struct Held<C> {
    connection: C,
    made: Instant,
    /// When the connection was last returned.
    since: Instant,
}

impl<C> Held<C> {
    fn new(connection: C) -> Self {
        let now = Instant::now();
        Self {
            connection,
            made: now,
            since: now,
        }
    }
}

/// A connection for one call. The next call may use it only if this call completed.
///
/// After an error, or if the caller was dropped, the connection may be in a transaction or may
/// never respond again. It is then closed, which rolls the transaction back.
pub(in crate::backend) struct Lease<'a, S: Source> {
    pool: &'a Pool<S>,
    held: Held<S::Connection>,
    place: SemaphorePermit<'a>,
}

impl<S: Source> Lease<'_, S> {
    /// Returns the connection to the pool, because the call completed.
    pub(in crate::backend) fn keep(self) {
        self.pool.give_back(self.held);
        drop(self.place);
    }
}

impl<S: Source> Deref for Lease<'_, S> {
    type Target = S::Connection;

    fn deref(&self) -> &S::Connection {
        &self.held.connection
    }
}

impl<S: Source> DerefMut for Lease<'_, S> {
    fn deref_mut(&mut self) -> &mut S::Connection {
        &mut self.held.connection
    }
}

/// Why a call got no connection.
#[derive(Debug, thiserror::Error)]
enum NoConnection {
    #[error("all connections are in use; raise the pool's size, or make fewer calls at once")]
    Busy,
    #[error("the backend is closed; open a new one")]
    Closed,
    #[error("no connection could be opened, and no other call returned one in time")]
    Refused(#[source] Arc<sqlx::Error>),
}

/// The pause before the next attempt, after a connection was refused.
const PAUSE: Duration = Duration::from_millis(200);

/// A response takes one round trip.
const PING: Duration = Duration::from_secs(1);

/// Opening a connection takes some round trips. After this time, a call also takes a connection
/// that another call returns.
const SLOW: Duration = Duration::from_secs(1);

#[cfg(all(test, feature = "sqlite"))]
mod tests;
