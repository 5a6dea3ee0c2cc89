//! What a process does about a chain that is due.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::flight::{Flights, Landing, Seat};
use super::guard::{Breaker, Deaths, Pace};
use super::memo::Memo;
use super::protocol::{self, Acquired, CALL, Demand, Freshness, KEEP_ALIVE, LEASE};
use super::prove::is_ended;
use super::refresh::Step;
use super::{Error, RotationConfig};
use crate::clock::Clock;
use crate::installation::Grant;
use crate::random;
use crate::slack::{Error as SlackError, ErrorCode, SlackClient};
use crate::store::{self, Chain, ChainKey, HARD, RotationStore, SOFT, SPREAD, StoredChain};

/// One process's part of the protocol.
pub(super) struct Engine {
    pub(super) breaker: Breaker,
    pub(super) clock: Clock,
    pub(super) config: RotationConfig,
    pub(super) deaths: Deaths,
    pub(super) flights: Flights,
    pub(super) memo: Memo,
    /// Places for uses that are being noted.
    notes: Arc<Semaphore>,
    /// A worker that looks at it before a page, too, gives way to callers after a 429.
    pub(super) pace: Pace,
    pub(super) slack: SlackClient,
    pub(super) store: Arc<dyn RotationStore>,
}

/// What a flight is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    pub(super) demand: Demand,
    /// Somebody waits: if another process is at it, wait for that one.
    pub(super) waits: bool,
    /// Nobody asked: a worker buys it ahead.
    pub(super) is_ahead: bool,
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
            flights: Flights::default(),
            memo: Memo::new(u64::from_be_bytes(random::bytes())),
            notes: Arc::new(Semaphore::new(NOTES)),
            pace: Pace::default(),
            slack,
            store,
        }
    }

    /// Joins this process's refresh of the chain, or starts it.
    pub(super) fn board(self: &Arc<Self>, key: &ChainKey, want: Want) -> Result<Seat, Error> {
        self.flights.board(key, || {
            let (engine, key) = (Arc::clone(self), key.clone());
            async move {
                let landing = engine.fly(&key, want).await;
                if landing.is_err() && want.waits {
                    engine.look_into(&key).await;
                }
                engine.report(&key, &landing);
                landing
            }
        })
    }

    /// Starts a refresh that nobody waits for, unless one is under way or none can be of use.
    pub(super) fn refresh_quietly(self: &Arc<Self>, key: &ChainKey) {
        if self.is_worth_a_look(key) {
            self.board_quietly(key);
        }
    }

    fn is_worth_a_look(&self, key: &ChainKey) -> bool {
        !self.pace.is_held() && !self.memo.is_quiet(key) && !self.flights.is_flying(key)
    }

    fn board_quietly(self: &Arc<Self>, key: &ChainKey) {
        let want = Want {
            demand: Demand::Current,
            waits: false,
            is_ahead: false,
        };
        // Closed: the process is going down, and the token still serves.
        drop(self.board(key, want));
    }

    /// How a token that was just read stands, by its end alone: never fresher than it is.
    pub(super) fn guess(&self, grant: &Grant) -> Freshness {
        let now = self.clock.now();
        let Some(expires_at) = grant.expires_at else {
            return Freshness::Fresh;
        };
        if now + HARD >= expires_at {
            return Freshness::Hard;
        }
        match grant.refresh_token.is_some() && now + SOFT + SPREAD >= expires_at {
            true => Freshness::Soft,
            false => Freshness::Fresh,
        }
    }

    /// Whether a token that still serves is not handed out before a try to replace it.
    pub(super) fn must_wait(&self, chain: &Chain, freshness: Freshness) -> bool {
        let is_strict = self.config.strict && freshness > Freshness::Fresh;
        is_strict || chain.is_suspect()
    }

    /// Whether a refresh of this chain could do something now.
    pub(super) fn is_free(&self, chain: &Chain, now: SystemTime) -> bool {
        let held = chain.lease.is_some_and(|lease| lease.until > now);
        !chain.is_dead && !held && protocol::waits(chain, now).is_none()
    }

    /// Behind the caller's back: notes in the record, once per pair and process, that somebody
    /// uses the chain, so that its next pair is bought ahead; and if it `is_due`, buys that now.
    ///
    /// All of it on one task: a worker of tokio's takes the first one that a caller starts up by
    /// itself, and for a second one wakes another thread, which the caller pays for.
    pub(super) fn note_use(
        self: &Arc<Self>,
        key: &ChainKey,
        expires_at: Option<SystemTime>,
        is_due: bool,
    ) {
        // A process that has just begun meets all its chains for the first time. Those that find
        // no place now are noted at a later use.
        let place = match expires_at {
            Some(_) => Arc::clone(&self.notes).try_acquire_owned().ok(),
            None => None,
        };
        let place = place.filter(|_| self.memo.is_first_use(key, expires_at));
        let is_due = is_due && self.is_worth_a_look(key);
        if place.is_none() && !is_due {
            return;
        }
        let (engine, key) = (Arc::clone(self), key.clone());
        drop(tokio::spawn(async move {
            if is_due {
                engine.board_quietly(&key);
            }
            if let Some(_place) = place {
                engine.touch(&key).await;
            }
        }));
    }

    async fn touch(&self, key: &ChainKey) {
        let mut touch =
            |chain: Option<&Chain>| protocol::touch(chain).map(|chain| self.scheduled(chain));
        if let Err(error) = self.store.update(key, None, &mut touch).await {
            tracing::debug!(chain = %key, %error, "the use of a chain could not be noted");
        }
    }

    /// Asks Slack whether a token that is under suspicion is alive; its word holds for a while. Only
    /// a refusal counts against the token: if Slack is away, nothing is known that was not before.
    pub(super) async fn is_alive(&self, key: &ChainKey, stored: &StoredChain) -> bool {
        let generation = stored.chain.generation;
        if let Some(verdict) = self.memo.verdict(key, generation) {
            return verdict;
        }
        let test = self.slack.auth_test(&stored.grant.access_token);
        let answer = tokio::time::timeout(CALL, test).await;
        let is_alive = !matches!(answer, Ok(Err(error)) if is_ended(&error));
        self.memo
            .judge(key, generation, is_alive, Instant::now() + VERDICT);
        is_alive
    }

    /// After a refresh that failed: asks once for all who wait, if the token is under suspicion.
    async fn look_into(&self, key: &ChainKey) {
        if let Ok(Some(stored)) = self.store.chain(key).await
            && stored.chain.is_suspect()
            && protocol::freshness(&stored.chain, self.clock.now()) < Freshness::Hard
        {
            self.is_alive(key, &stored).await;
        }
    }

    pub(super) fn scheduled(&self, chain: Chain) -> Chain {
        protocol::scheduled(chain)
    }

    pub(super) fn keep_alive(&self) -> Option<Duration> {
        self.config.is_pkce_app.then_some(KEEP_ALIVE)
    }

    /// Until the chain is current, or it is known why it cannot be.
    async fn fly(self: &Arc<Self>, key: &ChainKey, want: Want) -> Landing {
        let give_up = Instant::now() + FLIGHT;
        let mint = || u128::from_be_bytes(random::bytes());
        let mut owner = mint();
        let mut watch = Watch::default();
        let mut pause = FIRST_PAUSE;
        let mut outage = Outage::default();
        loop {
            let begun = Instant::now();
            let blocked = self.breaker.reason();
            let asked = self.acquire(key, want.demand, owner, &watch, blocked.is_some());
            let (stored, acquired) = match asked.await {
                Ok(outcome) => outcome,
                // The lease may be taken: the same owner asks again.
                Err(error) => {
                    self.sit_out(&mut outage, error).await?;
                    continue;
                }
            };
            outage = Outage::default();
            match acquired {
                Acquired::Current => {
                    let stored = stored.ok_or(Error::NotInstalled)?;
                    return Ok(Arc::new(stored));
                }
                Acquired::Dead { error } => {
                    return Err(Error::ReinstallNeeded {
                        code: code(error.as_deref()),
                    });
                }
                Acquired::Go(ticket) => {
                    if let Some(code) = blocked {
                        return Err(Error::Configuration { code });
                    }
                    let stored = stored.ok_or(Error::NotInstalled)?;
                    // A straggler of this ticket must not end the lease of the next one.
                    owner = mint();
                    match self
                        .refresh(key, &ticket, stored, begun, want.is_ahead)
                        .await?
                    {
                        Step::Again => {}
                        Step::Done(stored) => return Ok(stored),
                    }
                }
                Acquired::Held(lease) => {
                    let stored = stored.ok_or(Error::NotInstalled)?;
                    if !want.waits {
                        return Ok(Arc::new(stored));
                    }
                    watch.see(lease.owner);
                    tokio::time::sleep(self.jittered(pause)).await;
                    pause = (pause * 8 / 5).min(LONGEST_PAUSE);
                }
                Acquired::Missing => return Err(Error::NotInstalled),
                Acquired::Wait { until, error } => {
                    return Err(Error::TryAgain {
                        at: until,
                        code: code(error.as_deref()),
                    });
                }
            }
            if Instant::now() >= give_up {
                return Err(Error::Busy);
            }
            if self.flights.is_closed() {
                return Err(Error::Interrupted);
            }
        }
    }

    async fn acquire(
        &self,
        key: &ChainKey,
        demand: Demand,
        owner: u128,
        watch: &Watch,
        is_blocked: bool,
    ) -> Result<(Option<StoredChain>, Acquired), store::Error> {
        let mut acquired = Acquired::Missing;
        let mut decide = |chain: Option<&Chain>| {
            let (next, answer) =
                protocol::acquire(chain, demand, owner, watch.lapsed(), self.clock.now());
            acquired = answer;
            let next = next.filter(|_| !is_blocked);
            next.map(|next| self.scheduled(next))
        };
        let stored = self.store.update(key, None, &mut decide).await?;
        Ok((stored, acquired))
    }

    /// Waits a little for a database that did not answer.
    ///
    /// # Errors
    ///
    /// The error, if it is another one, or has lasted too long.
    pub(super) async fn sit_out(
        &self,
        outage: &mut Outage,
        error: store::Error,
    ) -> Result<(), store::Error> {
        let (since, pause) = outage.0.unwrap_or_else(|| (Instant::now(), FIRST_PAUSE));
        if !error.is_transient() || since.elapsed() > STORE_PATIENCE {
            return Err(error);
        }
        outage.0 = Some((since, (pause * 2).min(LONGEST_STORE_PAUSE)));
        tokio::time::sleep(self.jittered(pause)).await;
        Ok(())
    }

    /// A pause of 50 to 150 %.
    pub(super) fn jittered(&self, pause: Duration) -> Duration {
        pause.mul_f64(0.5 + self.memo.random())
    }

    fn report(&self, key: &ChainKey, landing: &Landing) {
        let now = self.clock.now();
        let quiet = match landing {
            Ok(stored) if protocol::freshness(&stored.chain, now) > Freshness::Fresh => HELD_PAUSE,
            // Looked at early: due within the spread.
            Ok(stored) => {
                let soft_at = stored.chain.soft_at();
                let wait = soft_at.and_then(|soft_at| soft_at.duration_since(now).ok());
                wait.unwrap_or(SPREAD).min(SPREAD)
            }
            Err(Error::TryAgain { at, .. }) => {
                at.duration_since(now).unwrap_or_default().min(SPREAD)
            }
            Err(_) => DEAD_PAUSE,
        };
        self.memo.keep_quiet(key, Instant::now() + quiet);
        match landing {
            Ok(_) => {}
            Err(error @ (Error::ReinstallNeeded { .. } | Error::Store(_))) => {
                tracing::warn!(chain = %key, %error, "a token was not refreshed");
            }
            Err(error) => tracing::info!(chain = %key, %error, "a token was not refreshed"),
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

/// Since when the database does not answer, and how long to wait before the next try.
#[derive(Default)]
pub(super) struct Outage(Option<(Instant, Duration)>);

/// Another's lease, watched on our own monotonic clock: that clock needs no agreement.
#[derive(Default)]
struct Watch(Option<(u128, Instant)>);

impl Watch {
    fn see(&mut self, owner: u128) {
        if self.0.is_none_or(|(seen, _)| seen != owner) {
            self.0 = Some((owner, Instant::now()));
        }
    }

    /// The owner whose lease was seen for longer than a lease lasts.
    fn lapsed(&self) -> Option<u128> {
        let (owner, since) = self.0?;
        (since.elapsed() > LEASE).then_some(owner)
    }
}

pub(super) fn reinstall_needed(chain: &Chain) -> Error {
    Error::ReinstallNeeded {
        code: code(chain.last_error.as_deref()),
    }
}

/// Why a ticket's call failed, for the record.
pub(super) fn name(error: &SlackError) -> Arc<str> {
    match error {
        SlackError::Api { code, .. } => code.as_str().into(),
        SlackError::RateLimited { .. } => "ratelimited".into(),
        SlackError::Http { .. } => "http_status".into(),
        SlackError::Malformed { .. } => "malformed_answer".into(),
        SlackError::Transport(_) => "no_answer".into(),
    }
}

fn code(error: Option<&str>) -> ErrorCode {
    ErrorCode::new(error.unwrap_or("unknown"))
}

/// Reads of the store at once that no caller waits for.
const NOTES: usize = 16;

/// Longer than any lease and the refresh after it. Whoever still waits then asks anew.
const FLIGHT: Duration = Duration::from_secs(60);

/// Between two looks at a chain that another process refreshes; Slack answers in 100 to 500 ms.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// A database that fails over is back within seconds; callers have a patience of their own.
const STORE_PATIENCE: Duration = Duration::from_secs(10);

const LONGEST_STORE_PAUSE: Duration = Duration::from_secs(1);

/// The background looks again after this, when another process is at it.
const HELD_PAUSE: Duration = Duration::from_secs(2);

/// The background looks again after this, when nothing can be done.
const DEAD_PAUSE: Duration = Duration::from_secs(60);

/// Slack's `auth.test` is for hundreds of calls a minute.
pub(super) const VERDICT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn anothers_lease_has_lapsed_when_it_was_seen_for_longer_than_a_lease() {
        let mut watch = Watch::default();
        assert_eq!(watch.lapsed(), None);
        watch.see(1);
        let moment = Duration::from_millis(1);
        tokio::time::advance(LEASE).await;
        // Seeing the same owner again does not restart the time.
        watch.see(1);
        assert_eq!(watch.lapsed(), None);
        tokio::time::advance(moment).await;
        watch.see(1);
        assert_eq!(watch.lapsed(), Some(1));
        // Another owner's does.
        watch.see(2);
        assert_eq!(watch.lapsed(), None);
        tokio::time::advance(LEASE + moment).await;
        assert_eq!(watch.lapsed(), Some(2));
    }
}
