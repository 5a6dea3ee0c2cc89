//! The state of rotation in one process, and the only functions that change a stored chain.

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
use crate::log_limit::LogLimit;
use crate::random;
use crate::slack::{ClientCredentials, SlackClient};
use crate::store::{Chain, ChainKey, Error, RefreshThreshold, RotationStore, StoredChain};

/// Configures how tokens are refreshed.
#[derive(Debug)]
pub struct RotationConfig {
    /// The app's client id and secret.
    pub credentials: ClientCredentials,
    /// Whether callers wait for the refresh of every token that is due, even if the token is still
    /// valid.
    pub strict: bool,
    /// Whether the app has PKCE enabled. Its refresh tokens then expire after 30 days
    /// (`docs.slack.dev/authentication/using-pkce`), so the worker refreshes idle chains after 20.
    pub is_pkce_app: bool,
    /// How long a caller waits, for reads of the store and for a refresh. One caller can set another time with
    /// [`TokenRotator::within`](super::TokenRotator::within).
    pub patience: Duration,
    /// How long before its expiry a token is refreshed. Set the same in every process of the app.
    ///
    /// The store schedules an installation's first pair by the default. So a worker refreshes that
    /// pair no earlier than about two hours before its expiry, and callers as set here.
    pub threshold: RefreshThreshold,
}

impl RotationConfig {
    /// Creates a configuration that is not strict, for an app without PKCE. Callers wait for 20 s,
    /// which is longer than a lease.
    #[must_use]
    pub fn new(credentials: ClientCredentials) -> Self {
        Self {
            credentials,
            strict: false,
            is_pkce_app: false,
            patience: PATIENCE,
            threshold: RefreshThreshold::default(),
        }
    }
}

/// The state of rotation in one process.
pub(super) struct Engine {
    pub(super) breaker: Breaker,
    pub(super) clock: Clock,
    pub(super) config: RotationConfig,
    pub(super) deaths: Deaths,
    pub(super) flights: SingleFlight,
    pub(super) jitter: Jitter,
    /// Limits the lines about a fault that concerns all chains, such as a database outage.
    pub(super) log_limit: LogLimit,
    /// Limits how many uses of chains are recorded at the same time.
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
            log_limit: LogLimit::default(),
            jitter: Jitter::new(u64::from_be_bytes(random::bytes())),
            notes: Arc::new(Semaphore::new(NOTES)),
            pace: Pace::default(),
            recent: RecentlySeen::default(),
            slack,
            store,
        }
    }

    /// Updates a chain in one atomic step: passes the stored chain to `decide`, schedules the chain
    /// that it returns, and commits that. Returns the stored chain after the step, and the second
    /// result of `decide`.
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

    /// Works like [`step`](Self::step), but leaves it to `decide` to schedule the chain.
    pub(super) async fn step_unscheduled<A: Send>(
        &self,
        key: &ChainKey,
        offered: Option<&Grant>,
        mut decide: impl FnMut(Option<&Chain>) -> (Option<Chain>, A) + Send,
    ) -> Result<(Option<StoredChain>, A), Error> {
        let mut answer = None;
        let threshold = self.config.threshold;
        let mut shown = |chain: Option<&Chain>| {
            let chain = chain.map(|chain| Chain {
                threshold,
                ..chain.clone()
            });
            let (next, said) = decide(chain.as_ref());
            answer = Some(said);
            next
        };
        let stored = self.store.update(key, offered, &mut shown).await?;
        let stored = stored.map(|stored| self.with_threshold(stored));
        // The last result of `decide` is the one that was applied.
        let answer = answer.unwrap_or_else(|| decide(None).1);
        Ok((stored, answer))
    }

    /// Reads a chain. It may come from the store's cache.
    pub(super) async fn read(&self, key: &ChainKey) -> Result<Option<StoredChain>, Error> {
        let stored = self.store.chain(key).await?;
        Ok(stored.map(|stored| self.with_threshold(stored)))
    }

    /// Reads a chain from the database.
    pub(super) async fn read_current(&self, key: &ChainKey) -> Result<Option<StoredChain>, Error> {
        Ok(self.step(key, None, |_| (None, ())).await?.0)
    }

    fn with_threshold(&self, mut stored: StoredChain) -> StoredChain {
        stored.chain.threshold = self.config.threshold;
        stored
    }

    /// Works like [`step`](Self::step), but tries again while the database does not respond.
    ///
    /// # Errors
    ///
    /// The store's error, if it is not transient or if the database did not respond for
    /// [`STORE_PATIENCE`].
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

debug_fields!(Engine: config, flights, store);

/// Enough for the lease of a crashed process to lapse (15 s), and for the refresh after it.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many uses of chains a process records at the same time.
const NOTES: usize = 16;

const FIRST_PAUSE: Duration = Duration::from_millis(50);

const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A database that fails over is back within seconds. Callers have their own, separate time limit.
const STORE_PATIENCE: Duration = Duration::from_secs(10);
