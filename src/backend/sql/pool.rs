//! The connections of a backend to its SQL database, which all its calls share.
//!
//! It replaces sqlx's pool, for two reasons. That pool makes an extra round trip after each call.
//! And a call that has begun to connect does not take a returned connection, even if the server
//! refuses new ones.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::Connection;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::backend::Error;

/// Opens the connections of a pool.
pub(in crate::backend) trait Source: Send + Sync + 'static {
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
    /// One permit for each [`Place`]. Calls get permits in the order in which they arrive.
    places: Semaphore,
    state: Mutex<State<S>>,
    /// Notified when the pool is closed, and when a place of a closed pool is free.
    closing: Notify,
}

struct State<S: Source> {
    /// The last connection is used next, so that surplus ones stay idle and are closed.
    idle: Vec<Held<S::Connection>>,
    /// The calls that have a place and open a connection, the oldest first. Each also takes one
    /// that another call returns, so no connection is idle while a call waits here.
    waiters: VecDeque<oneshot::Sender<Lease<S>>>,
    /// When and why the server last refused a connection.
    refused: Option<(Instant, Arc<sqlx::Error>)>,
}

impl<S: Source> Pool<S> {
    pub(in crate::backend) fn new(source: S, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            source,
            places: Semaphore::new(limits.size as usize),
            limits,
            state: Mutex::new(State {
                idle: Vec::new(),
                waiters: VecDeque::new(),
                refused: None,
            }),
            closing: Notify::new(),
        })
    }

    #[cfg(feature = "postgres")]
    pub(in crate::backend) fn source(&self) -> &S {
        &self.source
    }

    /// Adds a connection that was opened elsewhere, before the first call.
    #[cfg(feature = "sqlite")]
    pub(in crate::backend) fn add(&self, connection: S::Connection) {
        self.state().idle.push(Held::new(connection));
    }

    /// Returns a connection for one call: an idle one, a new one, or one that another call returns
    /// before the new one is open. If the server refuses a new connection, tries again.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if the time is up or the pool is closed. If the server refused a
    /// connection, the source is the server's last error.
    pub(in crate::backend) async fn acquire(self: &Arc<Self>) -> Result<Lease<S>, Error> {
        let found = self.find().await;
        found.map_err(|error| Error::Unavailable(error.into()))
    }

    /// Fails the calls that wait, waits for the calls in progress, and closes all connections.
    pub(in crate::backend) async fn close(&self) {
        self.places.close();
        self.state().waiters.clear();
        self.closing.notify_waiters();
        let size = self.limits.size as usize;
        self.until(|places| places.available_permits() == size)
            .await;
        let idle = std::mem::take(&mut self.state().idle);
        for held in idle {
            // The connection is closed in either case.
            let _ = held.connection.close().await;
        }
    }

    async fn find(self: &Arc<Self>) -> Result<Lease<S>, NoConnection> {
        let start = Instant::now();
        let deadline = start + self.limits.patience;
        let Ok(permit) = timeout_at(deadline, self.places.acquire()).await else {
            // The other calls may have all places because they cannot connect either.
            let is_connecting = self.state().waiters.iter().any(|other| !other.is_closed());
            return Err(if is_connecting {
                self.not_connected(RECENT)
            } else {
                NoConnection::Busy
            });
        };
        permit.map_err(|_| NoConnection::Closed)?.forget();
        let place = Place(Arc::clone(self));
        let found = timeout_at(deadline, self.connection(place)).await;
        found.unwrap_or_else(|_| Err(self.not_connected(RECENT.min(start.elapsed()))))
    }

    /// Returns why no attempt of this period succeeded. An older refusal is not the reason, because
    /// the server has since stopped responding.
    fn not_connected(&self, period: Duration) -> NoConnection {
        match &self.state().refused {
            Some((at, error)) if at.elapsed() <= period => NoConnection::Refused(Arc::clone(error)),
            _ => NoConnection::NoResponse,
        }
    }

    /// Returns an idle connection that works, or else a new or a returned one.
    async fn connection(self: &Arc<Self>, place: Place<S>) -> Result<Lease<S>, NoConnection> {
        loop {
            let mut held = match self.idle_or_turn()? {
                Ok(held) => held,
                Err(turn) => return self.connect(place, turn).await,
            };
            if !self.source.is_suspect(held.since.elapsed()) {
                return Ok(Lease { held, place });
            }
            let asked = Instant::now();
            match timeout(PING, held.connection.ping()).await {
                Ok(Ok(())) => return Ok(Lease { held, place }),
                Ok(Err(_)) => {}
                // A firewall or a failed machine that dropped this connection silently has also
                // dropped those that were idle at that time. Testing each of them would take too
                // long.
                Err(_) => self.state().idle.retain(|idle| idle.since > asked),
            }
        }
    }

    /// Returns an idle connection. If there is none, queues for one that another call returns.
    fn idle_or_turn(&self) -> Result<Result<Held<S::Connection>, Turn<S>>, NoConnection> {
        let mut state = self.state();
        // Checked under the lock, because `close` then fails each call that is in the queue.
        if self.places.is_closed() {
            return Err(NoConnection::Closed);
        }
        Ok(state.idle.pop().ok_or_else(|| {
            let (sender, receiver) = oneshot::channel();
            state.waiters.retain(|waiter| !waiter.is_closed());
            state.waiters.push_back(sender);
            Turn(receiver)
        }))
    }

    /// Opens a connection, again and again if the server refuses, until another call returns one.
    async fn connect(
        self: &Arc<Self>,
        mut place: Place<S>,
        mut turn: Turn<S>,
    ) -> Result<Lease<S>, NoConnection> {
        loop {
            // Boxed, because the future has kilobytes that every call would carry, and is rarely
            // needed.
            let mut attempt = Box::pin(open(place));
            tokio::select! {
                returned = &mut turn.0 => {
                    let lease = returned.map_err(|_| NoConnection::Closed)?;
                    self.finish(attempt);
                    return Ok(lease);
                }
                opened = &mut attempt => match opened {
                    Ok(lease) => return Ok(lease),
                    Err(unused) => place = unused,
                },
            }
            if let Ok(returned) = timeout(PAUSE, &mut turn.0).await {
                return returned.map_err(|_| NoConnection::Closed);
            }
        }
    }

    /// Completes an attempt for the pool, so that the pool grows although the call that began the
    /// attempt no longer needs it.
    fn finish(
        self: &Arc<Self>,
        attempt: impl Future<Output = Result<Lease<S>, Place<S>>> + Send + Unpin + 'static,
    ) {
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            let opened = tokio::select! {
                opened = timeout(pool.limits.patience, attempt) => opened,
                () = pool.until(Semaphore::is_closed) => return,
            };
            if let Ok(Ok(lease)) = opened {
                lease.keep();
            }
        });
    }

    /// Waits until the condition is true. Notices only the changes that `closing` announces.
    async fn until(&self, is_so: impl Fn(&Semaphore) -> bool) {
        loop {
            let mut changed = pin!(self.closing.notified());
            // Enabled before the check, so that no change is missed that happens in between.
            changed.as_mut().enable();
            if is_so(&self.places) {
                return;
            }
            changed.await;
        }
    }

    /// Hands a connection to the oldest call that waits for one, or keeps it idle.
    fn give_back(&self, mut lease: Lease<S>) {
        let mut state = self.state();
        while let Some(waiter) = state.waiters.pop_front() {
            match waiter.send(lease) {
                Ok(()) => return,
                Err(unsent) => lease = unsent,
            }
        }
        let Lease { held, place } = lease;
        state.idle.push(held);
        let too_long = state.idle[0].since.elapsed() >= self.limits.idle;
        let longest = too_long.then(|| state.idle.remove(0));
        drop(state);
        drop(place);
        if let Some(longest) = longest {
            close(longest);
        }
    }

    /// Locks the state. No code panics while it holds this lock.
    fn state(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a connection, or returns the place if the server refuses.
async fn open<S: Source>(place: Place<S>) -> Result<Lease<S>, Place<S>> {
    let opened = place.0.source.open().await;
    let mut state = place.0.state();
    match opened {
        Ok(connection) => {
            state.refused = None;
            drop(state);
            let held = Held::new(connection);
            Ok(Lease { held, place })
        }
        Err(error) => {
            state.refused = Some((Instant::now(), Arc::new(error)));
            drop(state);
            Err(place)
        }
    }
}

/// The right to open or use one connection.
struct Place<S: Source>(Arc<Pool<S>>);

impl<S: Source> Drop for Place<S> {
    fn drop(&mut self) {
        self.0.places.add_permits(1);
        if self.0.places.is_closed() {
            self.0.closing.notify_waiters();
        }
    }
}

/// The wait for a connection that another call returns.
struct Turn<S: Source>(oneshot::Receiver<Lease<S>>);

impl<S: Source> Drop for Turn<S> {
    fn drop(&mut self) {
        self.0.close();
        // The connection arrived when the call no longer waited.
        if let Ok(lease) = self.0.try_recv() {
            lease.keep();
        }
    }
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
pub(in crate::backend) struct Lease<S: Source> {
    held: Held<S::Connection>,
    place: Place<S>,
}

impl<S: Source> Lease<S> {
    /// Returns the connection to the pool, because the call completed.
    pub(in crate::backend) fn keep(mut self) {
        let pool = Arc::clone(&self.place.0);
        if self.held.made.elapsed() >= pool.limits.age {
            close(self.held);
            return;
        }
        self.held.since = Instant::now();
        pool.give_back(self);
    }
}

impl<S: Source> Deref for Lease<S> {
    type Target = S::Connection;

    fn deref(&self) -> &S::Connection {
        &self.held.connection
    }
}

impl<S: Source> DerefMut for Lease<S> {
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
    #[error("the server did not respond in time to a new connection; check that it is reachable")]
    NoResponse,
    #[error("the server refused new connections, and no other call returned one in time")]
    Refused(#[source] Arc<sqlx::Error>),
}

/// The pause before the next attempt, after a connection was refused.
const PAUSE: Duration = Duration::from_millis(200);

/// A response takes one round trip.
const PING: Duration = Duration::from_secs(1);

/// An attempt after a refusal that takes longer than this got no response.
const RECENT: Duration = Duration::from_secs(1);

#[cfg(all(test, feature = "sqlite"))]
mod tests;
