//! Decides when a worker checks a chain, and what the worker does then.

use std::time::{Duration, SystemTime};

use crate::clock::to_epoch;
use crate::store::Chain;

/// What a worker does about a chain that may be due.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Served {
    Nothing,
    Refresh,
}

/// Decides whether a worker refreshes a chain now, or when it checks the chain again.
///
/// `keep_alive` is set if this process keeps idle chains alive.
pub(crate) fn serve(
    chain: Option<&Chain>,
    now: SystemTime,
    keep_alive: Option<Duration>,
) -> (Option<Chain>, Served) {
    let Some(chain) = chain else {
        return (None, Served::Nothing);
    };
    let is_held = chain.lease.is_some_and(|lease| now < lease.until);
    let is_wanted = keep_alive.is_some() || !is_parked(chain);
    let scheduled = scheduled(chain.clone());
    let is_due = scheduled.due_at.is_some_and(|due_at| due_at <= now);
    match (is_due && !is_held, is_wanted) {
        (true, true) => (None, Served::Refresh),
        // The chain is due again in a day, in time for a process that keeps idle chains alive.
        (true, false) => {
            let due_at = Some(now + PARKED_LOOK);
            let looked_at = Chain {
                due_at,
                ..chain.clone()
            };
            (Some(looked_at), Served::Nothing)
        }
        (false, _) => {
            // Compares whole seconds, because these are stored.
            let seconds = |chain: &Chain| chain.due_at.map(to_epoch);
            let moved = seconds(&scheduled) != seconds(chain);
            (moved.then_some(scheduled), Served::Nothing)
        }
    }
}

/// Returns the chain with the time at which a worker should check it.
///
/// An idle chain is checked before its refresh token could expire, even if this process does not
/// keep idle chains alive. Another process may do so, or this one later.
pub(crate) fn scheduled(chain: Chain) -> Chain {
    let soft_at = chain.soft_at();
    let patient_until = if chain.attempts > 0 {
        LONG_OUTAGE
    } else {
        PERSISTENT
    };
    let rest = rest(chain.failures, patient_until);
    let retry_at = chain.retry_at.map(|at| at + rest);
    let kept = chain.issued_at + KEEP_ALIVE;
    let due_at = match (&chain.lease, chain.refresh) {
        _ if chain.is_dead => None,
        (_, None) => None,
        (Some(lease), _) => Some(lease.until),
        _ if chain.is_unsettled() => Some(retry_at.unwrap_or(chain.issued_at)),
        _ if is_parked(&chain) => Some(retry_at.map_or(kept, |at| at.max(kept))),
        _ => soft_at.max(retry_at.filter(|_| soft_at.is_some())),
    };
    Chain { due_at, ..chain }
}

/// Returns whether the chain is parked: it was idle for so long that no pair is bought ahead.
fn is_parked(chain: &Chain) -> bool {
    let is_idle = chain.idle >= PARKED && !chain.is_unsettled() && chain.lease.is_none();
    is_idle && !chain.is_dead && chain.refresh.is_some()
}

/// Returns how much longer than `retry_at` a worker waits, after this many failures, if it is
/// patient until so many.
///
/// The worker tries often in the first minutes: a lost response can still be repaired, and an
/// outage of Slack may end. A chain that fails for longer has another cause. Callers do not wait
/// for the worker.
fn rest(failures: u32, patient_until: u32) -> Duration {
    match failures.checked_sub(patient_until) {
        None => Duration::ZERO,
        Some(more) => (FIRST_REST * (1 << more.min(8))).min(LONGEST_REST),
    }
}

/// A chain is parked after this many pairs that no caller has used. Two pairs last about a day.
pub(super) const PARKED: u32 = 2;

/// The age at which an idle chain is refreshed. A PKCE app's refresh token lives for 30 days.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(20 * 24 * 60 * 60);

/// How long a process that does not keep chains alive leaves a parked chain to other processes. Ten
/// of the 30 days remain for them.
pub(super) const PARKED_LOOK: Duration = Duration::from_secs(24 * 60 * 60);

/// The number of failures after which a worker tries less often: after about six minutes, when it
/// tries once a minute.
pub(super) const PERSISTENT: u32 = 10;

/// The number of failures up to which a call of unknown outcome is repeated while Slack may still
/// accept its refresh token: about ten minutes. An outage of Slack is normally shorter.
pub(crate) const LONG_OUTAGE: u32 = 50;

/// The first additional wait. It doubles with each further failure.
pub(super) const FIRST_REST: Duration = Duration::from_secs(2 * 60);

/// The longest additional wait: two tries within the life of an access token.
pub(super) const LONGEST_REST: Duration = Duration::from_secs(6 * 60 * 60);
