//! What one process knows of rotation, and the one way in which it changes a stored chain.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::guard::{Breaker, Deaths, Pace};
use super::jitter::Jitter;
use super::protocol;
use super::recent::RecentlySeen;
use super::single_flight::SingleFlight;
use crate::clock::Clock;
use crate::installation::Grant;
use crate::random;
use crate::slack::{ClientCredentials, SlackClient};
use crate::store::{Chain, ChainKey, Error, RotationStore, StoredChain};

/// How tokens are kept current.
#[derive(Debug)]
pub struct RotationConfig {
    /// The app's client id and secret.
    pub credentials: ClientCredentials,
    /// Wait for the refresh of every token that is due, even while it still serves.
    pub strict: bool,
    /// The app has PKCE enabled, so that its refresh tokens end after 30 days
    /// (`docs.slack.dev/authentication/using-pkce`): the worker refreshes idle chains after 20.
    pub is_pkce_app: bool,
    /// How long a caller waits for a refresh, unless it says so itself
    /// ([`TokenRotator::within`](super::TokenRotator::within)).
    pub patience: Duration,
}

impl RotationConfig {
    /// Lenient, not a PKCE app, and 20 s of patience: more than one lease.
    #[must_use]
    pub fn new(credentials: ClientCredentials) -> Self {
        Self {
            credentials,
            strict: false,
            is_pkce_app: false,
            patience: PATIENCE,
        }
    }
}

/// One process's part of the protocol.
pub(super) struct Engine {
    pub(super) breaker: Breaker,
    pub(super) clock: Clock,
    pub(super) config: RotationConfig,
    pub(super) deaths: Deaths,
    pub(super) flights: SingleFlight,
    pub(super) jitter: Jitter,
    /// A permit for each use of a chain that is being recorded.
    pub(super) notes: Arc<Semaphore>,
    pub(super) pace: Pace,
    pub(super) recent: RecentlySeen,
    pub(super) slack: SlackClient,
    pub(super) store: Arc<dyn RotationStore>,
}

impl Engine {
    pub(super) fn new(
        config: RotationConfig,
        slack: SlackClient,
        store: Arc<dyn RotationStore>,
    ) -> Self {
        Self {
            breaker: Breaker::default(),
            clock: Clock::default(),
            config,
            deaths: Deaths::default(),
            flights: SingleFlight::default(),
            jitter: Jitter::new(u64::from_be_bytes(random::bytes())),
            notes: Arc::new(Semaphore::new(NOTES)),
            pace: Pace::default(),
            recent: RecentlySeen::default(),
            slack,
            store,
        }
    }

    /// One atomic step of a chain: shows the stored chain to `decide`, schedules the chain that
    /// it returns, and commits that. Returns the stored chain after the step, and what `decide`
    /// said.
    pub(super) async fn step<A: Send>(
        &self,
        key: &ChainKey,
        offered: Option<&Grant>,
        mut decide: impl FnMut(Option<&Chain>) -> (Option<Chain>, A) + Send,
    ) -> Result<(Option<StoredChain>, A), Error> {
        let decide = move |chain: Option<&Chain>| {
            let (next, answer) = decide(chain);
            (next.map(protocol::scheduled), answer)
        };
        self.step_unscheduled(key, offered, decide).await
    }

    /// A [`step`](Self::step) whose `decide` schedules the chain itself.
    pub(super) async fn step_unscheduled<A: Send>(
        &self,
        key: &ChainKey,
        offered: Option<&Grant>,
        mut decide: impl FnMut(Option<&Chain>) -> (Option<Chain>, A) + Send,
    ) -> Result<(Option<StoredChain>, A), Error> {
        let mut answer = None;
        let mut shown = |chain: Option<&Chain>| {
            let (next, said) = decide(chain);
            answer = Some(said);
            next
        };
        let stored = self.store.update(key, offered, &mut shown).await?;
        // The last answer is the one that was carried out.
        let answer = answer.unwrap_or_else(|| decide(None).1);
        Ok((stored, answer))
    }

    /// A [`step`](Self::step) that is repeated while the database does not respond.
    ///
    /// # Errors
    ///
    /// The store's error, if it is not transient, or the outage has lasted too long.
    pub(super) async fn patient_step<A: Send>(
        &self,
        key: &ChainKey,
        mut decide: impl FnMut(Option<&Chain>) -> (Option<Chain>, A) + Send,
    ) -> Result<(Option<StoredChain>, A), Error> {
        let mut pause = FIRST_PAUSE;
        let mut since = None;
        loop {
            let error = match self.step(key, None, &mut decide).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let since = since.get_or_insert_with(Instant::now);
            if !error.is_transient() || since.elapsed() > STORE_PATIENCE {
                return Err(error);
            }
            tokio::time::sleep(self.jitter.around(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("config", &self.config)
            .field("flights", &self.flights)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// A lease of 15 s of a process that crashed, and the refresh after it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Reads of the store at once that no caller waits for.
const NOTES: usize = 16;

const FIRST_PAUSE: Duration = Duration::from_millis(50);

const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A database that fails over is back within seconds; callers have a patience of their own.
const STORE_PATIENCE: Duration = Duration::from_secs(10);
