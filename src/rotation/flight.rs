//! One refresh per chain and process, on a task of its own: callers only wait for it.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use super::Error;
use crate::store::{ChainKey, StoredChain};

/// What a flight brought: the chain as it stands, or why there is none.
pub(super) type Landing = Result<Arc<StoredChain>, Error>;

/// A place to wait for a flight.
pub(super) struct Seat(watch::Receiver<Option<Landing>>);

impl Seat {
    /// What the flight brings, if it lands before then. Leaving early changes nothing for it.
    pub(super) async fn landing(mut self, deadline: Instant) -> Landing {
        let landed = self.0.wait_for(Option::is_some);
        match tokio::time::timeout_at(deadline, landed).await {
            Ok(Ok(landing)) => landing.clone().unwrap_or(Err(Error::Interrupted)),
            Ok(Err(_)) => Err(Error::Interrupted),
            Err(_) => Err(Error::Busy),
        }
    }
}

/// The flights of one process.
#[derive(Clone)]
pub(super) struct Flights(Arc<Mutex<Airspace>>, watch::Sender<usize>);

impl Default for Flights {
    fn default() -> Self {
        Self(Arc::default(), watch::Sender::new(0))
    }
}

/// Somebody who still waits for an answer after the flight that asked has landed.
pub(super) struct Straggler(watch::Sender<usize>);

impl Drop for Straggler {
    fn drop(&mut self) {
        self.0.send_modify(|stragglers| *stragglers -= 1);
    }
}

#[derive(Default)]
struct Airspace {
    flying: HashMap<ChainKey, watch::Receiver<Option<Landing>>>,
    is_closed: bool,
}

impl Flights {
    /// Joins the flight of this chain, or starts one.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`] once closed, if none is flying.
    pub(super) fn board<F>(&self, key: &ChainKey, flight: impl FnOnce() -> F) -> Result<Seat, Error>
    where
        F: Future<Output = Landing> + Send + 'static,
    {
        let mut airspace = self.airspace();
        if let Some(flying) = airspace.flying.get(key) {
            return Ok(Seat(flying.clone()));
        }
        if airspace.is_closed {
            return Err(Error::Interrupted);
        }
        let (lands, seat) = watch::channel(None);
        airspace.flying.insert(key.clone(), seat.clone());
        drop(airspace);
        let pilot = Pilot {
            flights: self.clone(),
            key: key.clone(),
            lands,
        };
        let flight = flight();
        drop(tokio::spawn(async move {
            let landing = flight.await;
            pilot.land(landing);
        }));
        Ok(Seat(seat))
    }

    pub(super) fn is_flying(&self, key: &ChainKey) -> bool {
        self.airspace().flying.contains_key(key)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.airspace().is_closed
    }

    /// Starts no more flights, and waits for those that fly. `false` if some still fly then.
    pub(super) async fn close(&self, deadline: Instant) -> bool {
        let flying: Vec<_> = {
            let mut airspace = self.airspace();
            airspace.is_closed = true;
            airspace.flying.values().cloned().collect()
        };
        for seat in flying {
            if let Err(Error::Busy) = Seat(seat).landing(deadline).await {
                return false;
            }
        }
        let mut stragglers = self.1.subscribe();
        let gone = stragglers.wait_for(|stragglers| *stragglers == 0);
        tokio::time::timeout_at(deadline, gone).await.is_ok()
    }

    /// Makes [`close`](Self::close) wait for this as well.
    pub(super) fn straggler(&self) -> Straggler {
        self.1.send_modify(|stragglers| *stragglers += 1);
        Straggler(self.1.clone())
    }

    fn airspace(&self) -> MutexGuard<'_, Airspace> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Flights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flights({})", self.airspace().flying.len())
    }
}

/// Frees the chain for the next flight however this one ends, a panic included.
struct Pilot {
    flights: Flights,
    key: ChainKey,
    lands: watch::Sender<Option<Landing>>,
}

impl Pilot {
    fn land(self, landing: Landing) {
        self.leave();
        self.lands.send_replace(Some(landing));
    }

    /// Before the landing is told: whoever hears of it can start the next flight.
    fn leave(&self) {
        let mut airspace = self.flights.airspace();
        let ours = |flying: &watch::Receiver<_>| flying.same_channel(&self.lands.subscribe());
        if airspace.flying.get(&self.key).is_some_and(ours) {
            airspace.flying.remove(&self.key);
        }
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        // After a landing this finds nothing of its own. Without one the channel closes, and
        // whoever waits hears `Interrupted`.
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Wake, Waker};
    use std::time::Duration;

    use super::*;
    use crate::store::Credential;
    use crate::tenant::{InstallationKey, TeamId};

    fn key() -> ChainKey {
        ChainKey {
            credential: Credential::Bot,
            tenant: InstallationKey::workspace(TeamId::new("T0ALPHA0001").expect("an id")),
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    /// A flight of this length.
    async fn flight(length: Duration) -> Landing {
        tokio::time::sleep(length).await;
        Err(Error::NotInstalled)
    }

    #[tokio::test(start_paused = true)]
    async fn once_closed_a_flight_can_be_joined_and_none_be_started() {
        let flights = Flights::default();
        let begun = flights.board(&key(), || flight(Duration::from_secs(3)));
        begun.expect("started");
        assert!(!flights.close(soon()).await, "it still flies");
        assert!(flights.is_closed());
        let joined = flights.board(&key(), pending::<Landing>);
        let joined = joined.expect("it still flies");
        assert!(flights.close(Instant::now() + Duration::from_secs(3)).await);
        let landing = joined.landing(Instant::now()).await;
        assert!(matches!(landing, Err(Error::NotInstalled)), "{landing:?}");
        let refused = flights.board(&key(), pending::<Landing>);
        assert!(matches!(refused, Err(Error::Interrupted)));
    }

    #[tokio::test(start_paused = true)]
    async fn to_close_is_to_wait_for_every_straggler() {
        let flights = Flights::default();
        let (one, two) = (flights.straggler(), flights.straggler());
        assert!(!flights.close(soon()).await);
        drop(one);
        assert!(!flights.close(soon()).await);
        drop(two);
        assert!(flights.close(soon()).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_ends_is_told_from_a_flight_that_ends_without_a_word() {
        let flights = Flights::default();
        let seat = flights.board(&key(), || flight(Duration::from_secs(3)));
        let landing = seat.expect("started").landing(soon()).await;
        assert!(matches!(landing, Err(Error::Busy)), "{landing:?}");
        tokio::time::sleep(Duration::from_secs(3)).await;
        let seat = flights.board(&key(), || async {
            // On purpose, and without a word.
            std::panic::resume_unwind(Box::new("the flight ends"))
        });
        let landing = seat.expect("started").landing(soon()).await;
        assert!(matches!(landing, Err(Error::Interrupted)), "{landing:?}");
        assert!(!flights.is_flying(&key()));
    }

    /// Starts the next flight of the chain as soon as it hears of a landing.
    struct Next {
        flights: Flights,
        started: AtomicBool,
    }

    impl Wake for Next {
        fn wake(self: Arc<Self>) {
            if !self.started.load(Ordering::SeqCst) {
                let is_free = !self.flights.is_flying(&key());
                self.started.store(is_free, Ordering::SeqCst);
                let seat = self.flights.board(&key(), pending::<Landing>);
                drop(seat.expect("joined or started"));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_hears_of_a_landing_can_start_the_next_flight_and_nobody_ends_that() {
        let flights = Flights::default();
        let seat = flights.board(&key(), || flight(Duration::ZERO));
        let next = Arc::new(Next {
            flights: flights.clone(),
            started: AtomicBool::new(false),
        });
        let waker = Waker::from(Arc::clone(&next));
        let mut landing = pin!(seat.expect("started").landing(soon()));
        let polled = landing.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(next.started.load(Ordering::SeqCst));
        assert!(flights.is_flying(&key()), "the next one");
    }
}
