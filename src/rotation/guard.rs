//! Guards that keep one mistake, such as a wrong client secret, from marking every chain dead.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics;
use crate::slack::ErrorCode;

/// A circuit breaker that opens when Slack rejects the app's configuration. While it is open, it
/// lets through one call (a probe) every few minutes.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<Option<Open>>);

#[derive(Debug)]
struct Open {
    code: ErrorCode,
    pause: Duration,
    probe_at: Instant,
    since: Instant,
}

impl Breaker {
    /// Returns Slack's error code while the breaker lets no call through, and `None` otherwise.
    pub(super) fn reason(&self) -> Option<ErrorCode> {
        let open = self.open();
        let closed = open.as_ref().filter(|open| Instant::now() < open.probe_at);
        closed.map(|open| open.code.clone())
    }

    /// Returns Slack's error code while the breaker is open, also when a probe is due.
    pub(super) fn code(&self) -> Option<ErrorCode> {
        self.open().as_ref().map(|open| open.code.clone())
    }

    /// Lets a call through, or returns Slack's error code.
    pub(super) fn check(&self) -> Result<(), ErrorCode> {
        let mut open = self.open();
        let Some(open) = open.as_mut() else {
            return Ok(());
        };
        let now = Instant::now();
        if now < open.probe_at {
            return Err(open.code.clone());
        }
        // This call is the probe. The other callers wait for its result.
        open.probe_at = now + open.pause;
        Ok(())
    }

    /// Opens the breaker: Slack rejected the app in a call that was sent at `sent`.
    pub(super) fn trip(&self, code: &ErrorCode, sent: Instant) {
        let mut open = self.open();
        let pause = match &*open {
            // The call was sent before the breaker opened, so its failure changes nothing.
            Some(open) if sent <= open.since => return,
            Some(open) => (open.pause * 2).min(LONGEST),
            None => FIRST,
        };
        let since = Instant::now();
        metrics::APP_REJECTED.set([], 1.0);
        tracing::error!(
            %code,
            "Slack rejects the app: check its client id, secret and settings; refreshes pause"
        );
        *open = Some(Open {
            code: code.clone(),
            pause,
            probe_at: since + pause,
            since,
        });
    }

    /// Closes the breaker: Slack accepted the app's credentials.
    pub(super) fn reset(&self) {
        if self.open().take().is_some() {
            metrics::APP_REJECTED.set([], 0.0);
            tracing::info!("Slack accepts the app's configuration again; refreshes resume");
        }
    }

    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts the chains that this process marks dead.
///
/// If there are more than [`LIMIT`] within [`WINDOW`], the cause is probably a mistake of the app
/// or of Slack. No chain is then marked dead until a whole [`WINDOW`] passes without a refusal.
#[derive(Debug, Default)]
pub(super) struct Deaths(Mutex<Toll>);

#[derive(Debug, Default)]
struct Toll {
    recent: VecDeque<Instant>,
    shut_until: Option<Instant>,
}

impl Deaths {
    /// Returns whether one more chain may be marked dead, and counts it if so.
    pub(super) fn allow(&self) -> bool {
        let now = Instant::now();
        let mut toll = self.toll();
        let in_window = |death: &Instant| now.duration_since(*death) <= WINDOW;
        toll.recent.retain(in_window);
        let is_shut = toll.shut_until.is_some_and(|until| now < until);
        if is_shut || toll.recent.len() >= LIMIT {
            toll.shut_until = Some(now + WINDOW);
            return false;
        }
        toll.shut_until = None;
        toll.recent.push_back(now);
        true
    }

    /// Removes the last counted chain, because it was not marked dead after all.
    pub(super) fn spare(&self) {
        self.toll().recent.pop_back();
    }

    fn toll(&self) -> MutexGuard<'_, Toll> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pauses background refreshes while Slack limits the rate of calls, so that callers come first.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// Pauses background refreshes for this long. A longer pause that has begun stays.
    pub(super) fn hold(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut held = self.held();
        *held = Some(held.map_or(until, |held| held.max(until)));
    }

    /// Returns whether background refreshes are paused.
    pub(super) fn is_held(&self) -> bool {
        self.held().is_some_and(|until| Instant::now() < until)
    }

    fn held(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const FIRST: Duration = Duration::from_secs(10);

/// The longest pause between two probes. A corrected secret takes effect within this time.
const LONGEST: Duration = Duration::from_secs(5 * 60);

/// The time over which dead chains are counted.
///
/// A chain that was refused but not marked dead is tried again after the same time. The few chains
/// that are really dead then leave a whole window without a refusal.
pub(super) const WINDOW: Duration = Duration::from_secs(5 * 60);

/// How many chains a process may mark dead within [`WINDOW`]. Uninstallations arrive as events and
/// do not count here, so more dead chains are not caused by users who leave.
const LIMIT: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_on_its_way_when_the_breaker_opened_does_not_lengthen_its_pause() {
        let breaker = Breaker::default();
        let code = ErrorCode::new("bad_client_secret");
        let sent = Instant::now();
        tokio::time::advance(Duration::from_millis(100)).await;
        for _ in 0..6 {
            breaker.trip(&code, sent);
        }
        // Neither does a call of the moment at which the breaker opened.
        breaker.trip(&code, Instant::now());
        tokio::time::advance(FIRST).await;
        assert!(breaker.check().is_ok(), "the probe is let through");
        // The probe fails, so the pause doubles.
        breaker.trip(&code, Instant::now());
        tokio::time::advance(FIRST).await;
        assert!(breaker.check().is_err());
        tokio::time::advance(FIRST).await;
        assert!(breaker.check().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_callers_one_finds_out_in_each_pause() {
        let breaker = Breaker::default();
        assert_eq!(breaker.reason(), None);
        let code = ErrorCode::new("bad_client_secret");
        breaker.trip(&code, Instant::now());
        let moment = Duration::from_millis(1);
        tokio::time::advance(Duration::from_secs(10) - moment).await;
        assert_eq!(breaker.reason(), Some(code.clone()));
        assert_eq!(breaker.check(), Err(code.clone()));
        tokio::time::advance(moment).await;
        // The first probe has no outcome.
        for _ in 0..2 {
            assert_eq!(breaker.reason(), None, "a call is let through");
            assert_eq!(breaker.check(), Ok(()));
            for _ in 0..10 {
                assert_eq!(
                    breaker.check(),
                    Err(code.clone()),
                    "no second call is let through"
                );
            }
            assert_eq!(breaker.reason(), Some(code.clone()));
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        breaker.reset();
        for _ in 0..10 {
            assert_eq!((breaker.reason(), breaker.check()), (None, Ok(())));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_probe_that_fails_doubles_the_pause_up_to_five_minutes() {
        let breaker = Breaker::default();
        let code = ErrorCode::new("bad_client_secret");
        for _ in 0..2 {
            for pause in [10, 20, 40, 80, 160, 300, 300] {
                let moment = Duration::from_millis(1);
                tokio::time::advance(moment).await;
                breaker.trip(&code, Instant::now());
                tokio::time::advance(Duration::from_secs(pause) - moment).await;
                assert!(breaker.check().is_err(), "{pause} s");
                tokio::time::advance(moment).await;
                assert!(breaker.check().is_ok(), "{pause} s");
            }
            // After a reset the pauses start again at the first one.
            breaker.reset();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn twenty_chains_are_given_up_within_five_minutes_and_no_more() {
        let deaths = Deaths::default();
        for number in 0..20 {
            assert!(deaths.allow(), "{number}");
        }
        assert!(!deaths.allow());
        // A lower rate is normal: some users leave.
        let deaths = Deaths::default();
        for number in 0..200 {
            assert!(deaths.allow(), "{number}");
            tokio::time::advance(Duration::from_secs(16)).await;
        }
        let deaths = Deaths::default();
        let allowed = async |_| {
            tokio::time::advance(Duration::from_secs(14)).await;
            deaths.allow()
        };
        let mut all = true;
        for number in 0..40 {
            all &= allowed(number).await;
        }
        assert!(!all, "21 within five minutes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_while_none_is_given_up_begins_the_five_minutes_again() {
        let deaths = Deaths::default();
        assert!((0..20).all(|_| deaths.allow()));
        let moment = Duration::from_millis(1);
        for _ in 0..4 {
            assert!(!deaths.allow());
            tokio::time::advance(WINDOW - moment).await;
        }
        assert!(!deaths.allow());
        tokio::time::advance(WINDOW).await;
        assert!(deaths.allow());
    }

    #[tokio::test(start_paused = true)]
    async fn the_death_that_is_taken_back_is_the_last_one() {
        let deaths = Deaths::default();
        assert!(deaths.allow());
        tokio::time::advance(Duration::from_secs(200)).await;
        assert!(deaths.allow());
        deaths.spare();
        assert!((0..19).all(|_| deaths.allow()));
        assert!(!deaths.allow(), "the first one still counts");
        let deaths = Deaths::default();
        assert!(deaths.allow());
        tokio::time::advance(Duration::from_secs(200)).await;
        assert!(deaths.allow());
        deaths.spare();
        assert!((0..19).all(|_| deaths.allow()));
        tokio::time::advance(Duration::from_secs(101)).await;
        assert!(deaths.allow(), "the first one no longer counts");
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_times_to_wait_the_longer_is_kept() {
        let (short, long) = (Duration::from_secs(10), Duration::from_secs(60));
        for waits in [[short, long], [long, short]] {
            let pace = Pace::default();
            assert!(!pace.is_held());
            waits.into_iter().for_each(|wait| pace.hold(wait));
            let moment = Duration::from_millis(1);
            tokio::time::advance(long - moment).await;
            assert!(pace.is_held());
            tokio::time::advance(moment).await;
            assert!(!pace.is_held());
        }
    }
}
