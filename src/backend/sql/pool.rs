//! The connections of a backend to its SQL database, shared by all its calls.
//!
//! In place of sqlx's pool, which asks the server once more after each call. There, a call that
//! began to connect also takes no connection that comes back, even while the server refuses new
//! ones.

use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::Connection;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{sleep, timeout};

use crate::backend::Error;

/// Where the connections of a pool come from.
pub(in crate::backend) trait Source: Send + Sync {
    type Connection: Connection + 'static;

    fn open(&self) -> impl Future<Output = Result<Self::Connection, sqlx::Error>> + Send;

    /// Whether a connection that was idle for so long must answer before a call uses it.
    fn is_suspect(&self, idle_for: Duration) -> bool;
}

/// What a pool keeps to.
pub(in crate::backend) struct Limits {
    /// The most connections.
    pub(in crate::backend) size: u32,
    /// For how long a call waits for a connection.
    pub(in crate::backend) patience: Duration,
    /// A connection that is idle for longer is closed.
    pub(in crate::backend) idle: Duration,
    /// A connection that is older is closed after its call.
    pub(in crate::backend) age: Duration,
}

pub(in crate::backend) struct Pool<S: Source> {
    source: S,
    limits: Limits,
    /// One for each call that may have a connection or open one. Calls get them in the order in
    /// which they came.
    places: Semaphore,
    /// The last is used next, so that those too many grow old.
    idle: Mutex<Vec<Held<S::Connection>>>,
    /// Wakes a call that has a place, but no connection.
    given_back: Notify,
    /// Why a connection could not be opened, until one can.
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

    pub(in crate::backend) fn source(&self) -> &S {
        &self.source
    }

    /// Adds a connection that was opened elsewhere, before there are calls.
    #[cfg(feature = "sqlite")]
    pub(in crate::backend) fn add(&self, connection: S::Connection) {
        self.give_back(Held::new(connection));
    }

    /// A connection for the length of one call: an idle one, or a new one. A call that the server
    /// refuses a new one waits for whatever comes first, one that another call gives back, or
    /// better luck with the server.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if the time is up, with what the server said, or if the pool is
    /// closed.
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
            // It is gone in either case.
            let _ = held.connection.close().await;
        }
    }

    async fn find(&self) -> Result<Lease<'_, S>, NoConnection> {
        let place = self.places.acquire().await;
        let place = place.map_err(|_| NoConnection::Closed)?;
        let held = match self.working().await {
            Some(held) => held,
            // Boxed, as it is kilobytes that every call would carry along, and seldom needed.
            None => Box::pin(self.open()).await,
        };
        Ok(Lease {
            pool: self,
            held,
            place,
        })
    }

    /// An idle connection that works.
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
                // Whoever dropped it without a word, a firewall or a failed machine, has dropped
                // those that were idle with it. To try each out would take too long.
                Err(_) => self.idle().retain(|idle| idle.since > asked),
            }
        }
    }

    /// A new connection, or one that comes back while none can be opened.
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
            // Before the look, so that it misses none that comes back between the two.
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

/// Nothing panics while it holds one of these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes leave of the server, which would note in its log that the connection was lost.
fn close<C: Connection + 'static>(held: Held<C>) {
    tokio::spawn(held.connection.close());
}

struct Held<C> {
    connection: C,
    made: Instant,
    /// When it was given back.
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

/// A connection for one call. The next call gets it only if this one came to its end.
///
/// One that was left in the middle, by an error or by a caller that was dropped, may be in a
/// transaction, or may never answer again. It is closed, which rolls back.
pub(in crate::backend) struct Lease<'a, S: Source> {
    pool: &'a Pool<S>,
    held: Held<S::Connection>,
    place: SemaphorePermit<'a>,
}

impl<S: Source> Lease<'_, S> {
    /// The call came to its end: the next may use the connection.
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
    #[error("all connections are in use; allow more of them, or make fewer calls at once")]
    Busy,
    #[error("the backend is closed; open it again")]
    Closed,
    #[error("no connection can be opened, and none came back in time")]
    Refused(#[source] Arc<sqlx::Error>),
}

/// After a connection was refused, before the next try.
const PAUSE: Duration = Duration::from_millis(200);

/// An answer takes a round trip.
const PING: Duration = Duration::from_secs(1);

/// Opening a connection takes some round trips. One that takes longer than this is given up for
/// one that comes back.
const SLOW: Duration = Duration::from_secs(1);

#[cfg(all(test, feature = "sqlite"))]
mod tests;
