//! When a worker looks at a chain, and what it does then.

use std::time::{Duration, SystemTime};

use crate::clock::to_epoch;
use crate::store::Chain;

/// What a worker does about a chain that may be due.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Served {
    Nothing,
    Refresh,
}

/// Looks at a chain for a worker: whether to refresh it, or when to look again.
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
        // Not asked again before long, and in time for a process that is told to keep it alive.
        (true, false) => {
            let due_at = Some(now + PARKED_LOOK);
            let looked_at = Chain {
                due_at,
                ..chain.clone()
            };
            (Some(looked_at), Served::Nothing)
        }
        (false, _) => {
            // In whole seconds: what is stored.
            let seconds = |chain: &Chain| chain.due_at.map(to_epoch);
            let moved = seconds(&scheduled) != seconds(chain);
            (moved.then_some(scheduled), Served::Nothing)
        }
    }
}

/// The chain with the time at which a worker should look at it.
///
/// A chain that nobody uses is looked at before its refresh token could end, whether or not this
/// process knows that it does: others may, or this one later.
pub(crate) fn scheduled(chain: Chain) -> Chain {
    let soft_at = chain.soft_at();
    let retry_at = chain.retry_at.map(|at| at + rest(chain.failures));
    let kept = chain.issued_at + KEEP_ALIVE;
    let due_at = match (&chain.lease, chain.refresh) {
        _ if chain.is_dead => None,
        (_, None) => None,
        (Some(lease), _) => Some(lease.until),
        _ if chain.attempts > 0 => Some(retry_at.unwrap_or(chain.issued_at)),
        _ if is_parked(&chain) => Some(retry_at.map_or(kept, |at| at.max(kept))),
        _ => soft_at.max(retry_at.filter(|_| soft_at.is_some())),
    };
    Chain { due_at, ..chain }
}

/// Whether nobody has used the chain's tokens for so long that none is bought ahead.
fn is_parked(chain: &Chain) -> bool {
    let is_idle = chain.idle >= PARKED && chain.attempts == 0 && chain.lease.is_none();
    is_idle && !chain.is_dead && chain.refresh.is_some()
}

/// What a worker lets pass beyond the time at which a chain may be tried again. Within minutes a
/// lost answer can still be made good, and Slack's trouble ends; what fails for longer fails for a
/// reason of its own, and callers do not wait for the worker.
fn rest(failures: u32) -> Duration {
    match failures.checked_sub(PERSISTENT) {
        None => Duration::ZERO,
        Some(more) => (FIRST_REST * (1 << more.min(8))).min(LONGEST_REST),
    }
}

/// After two pairs, a day about, that nobody asked for, none is bought ahead.
pub(super) const PARKED: u32 = 2;

/// Of the 30 days that a PKCE app's refresh token lives.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(20 * 24 * 60 * 60);

/// A process of the fleet that does not keep chains alive leaves them to the others for the ten
/// days that remain.
pub(super) const PARKED_LOOK: Duration = Duration::from_secs(24 * 60 * 60);

/// After six minutes of failures, a try each minute at last.
pub(super) const PERSISTENT: u32 = 10;

pub(super) const FIRST_REST: Duration = Duration::from_secs(2 * 60);

/// Twice within the life of an access token.
pub(super) const LONGEST_REST: Duration = Duration::from_secs(6 * 60 * 60);
