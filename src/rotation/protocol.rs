//! The refresh protocol: record in, decision out. No I/O, no clock, no randomness.
//!
//! The engine, the exhaustive check and the simulation all run these functions.
//!
//! The lease only saves calls to Slack. What keeps a chain safe is that a pair is saved only over
//! the installation and the generation whose refresh token bought it, and that a pair that comes
//! too late for that is kept beside it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::to_epoch;
use crate::store::{Chain, InstallId, Lease, Mark};

/// What the caller wants of a chain.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Demand {
    /// A token that is not due.
    Current,
    /// A token of a later generation than this: Slack refused that one's.
    NewerThan(u64),
}

/// The answer to [`acquire`].
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Acquired {
    /// The token is not due.
    Current,
    /// Only a reinstall helps.
    Dead { error: Option<Arc<str>> },
    /// Call Slack.
    Go(Ticket),
    /// Somebody else is calling Slack.
    Held(Lease),
    /// There is no such chain.
    Missing,
    /// Slack, or our own backoff, said not before then.
    Wait {
        until: SystemTime,
        error: Option<Arc<str>>,
    },
}

/// What a refresh was begun on.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Ticket {
    pub(crate) install: InstallId,
    pub(crate) generation: u64,
    pub(crate) owner: u128,
    /// The refresh tokens to try, in this order.
    pub(crate) candidates: Vec<Mark>,
}

/// A pair that Slack issued.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Fresh {
    pub(crate) refresh: Mark,
    pub(crate) issued_at: SystemTime,
    pub(crate) expires_at: Option<SystemTime>,
    /// Nobody waits for it: it was bought ahead.
    pub(crate) is_ahead: bool,
}

/// The answer to [`commit`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Committed {
    /// Another pair was saved first; this one's refresh token is kept beside it.
    Alternate,
    /// The chain belongs to another installation, or is gone: revoke the pair.
    Orphan,
    /// The pair is the chain's.
    Saved,
}

/// The answer to [`refuse`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Refused {
    /// Every refresh token of the chain is refused.
    Dead,
    /// There are others now: look again.
    Moved,
}

/// How a refresh ended that brought neither a pair nor a refusal.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Released {
    /// Slack certainly issued nothing.
    pub(crate) is_definite: bool,
    pub(crate) retry_at: SystemTime,
    pub(crate) error: Arc<str>,
}

/// How a token stands by its age.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Freshness {
    Fresh,
    /// It serves, and is to be replaced.
    Soft,
    /// It does not serve any more, or only for minutes.
    Hard,
}

/// How a token stands.
pub(crate) fn freshness(chain: &Chain, now: SystemTime) -> Freshness {
    let reached = |at: Option<SystemTime>| at.is_some_and(|at| now >= at);
    match (reached(chain.hard_at()), reached(chain.soft_at())) {
        (true, _) => Freshness::Hard,
        (false, true) => Freshness::Soft,
        (false, false) => Freshness::Fresh,
    }
}

/// Takes the lease and notes the intent, if there is reason to call Slack and nobody else is.
///
/// `watched` is an owner whose lease the caller has seen unchanged for a whole [`LEASE`] on its
/// own monotonic clock: it has lapsed, whatever the clock of that owner said.
pub(crate) fn acquire(
    chain: Option<&Chain>,
    demand: Demand,
    owner: u128,
    watched: Option<u128>,
    now: SystemTime,
) -> (Option<Chain>, Acquired) {
    let Some(chain) = chain else {
        return (None, Acquired::Missing);
    };
    let Some(refresh) = chain.refresh else {
        return (None, Acquired::Current);
    };
    let is_due = match demand {
        // An attempt of unknown outcome is repeated at once, while Slack still takes the token.
        Demand::Current => chain.attempts > 0 || freshness(chain, now) > Freshness::Fresh,
        Demand::NewerThan(generation) => chain.generation <= generation,
    };
    if !is_due {
        return (None, Acquired::Current);
    }
    if matches!(demand, Demand::NewerThan(_)) && now < chain.issued_at + FORCED {
        let error = Some("refreshed_just_now".into());
        return (
            None,
            Acquired::Wait {
                until: chain.issued_at + FORCED,
                error,
            },
        );
    }
    if chain.is_dead {
        return (
            None,
            Acquired::Dead {
                error: chain.last_error.clone(),
            },
        );
    }
    let lapsed =
        |lease: &Lease| lease.owner == owner || Some(lease.owner) == watched || lease.until <= now;
    if let Some(lease) = chain.lease.filter(|lease| !lapsed(lease)) {
        return (None, Acquired::Held(lease));
    }
    if let Some(until) = chain.retry_at.filter(|until| *until > now) {
        let error = chain.last_error.clone();
        return (None, Acquired::Wait { until, error });
    }
    let next = Chain {
        lease: Some(Lease {
            owner,
            until: now + LEASE,
        }),
        attempts: chain.attempts.saturating_add(1),
        attempted_at: Some(now),
        ..chain.clone()
    };
    let newest_first = chain.alternates.iter().rev().copied();
    let ticket = Ticket {
        install: chain.install,
        generation: chain.generation,
        owner,
        candidates: std::iter::once(refresh).chain(newest_first).collect(),
    };
    (Some(next), Acquired::Go(ticket))
}

/// Takes the lease and notes the intent for the exchange of a long-lived token, which Slack takes
/// once: a chain with an intent whose outcome is unknown is not tried again.
pub(crate) fn acquire_exchange(
    chain: Option<&Chain>,
    owner: u128,
    now: SystemTime,
) -> (Option<Chain>, Acquired) {
    let Some(chain) = chain else {
        return (None, Acquired::Missing);
    };
    if chain.refresh.is_some() {
        return (None, Acquired::Current);
    }
    let wait = |until| Acquired::Wait {
        until,
        error: chain.last_error.clone(),
    };
    match (chain.lease, chain.retry_at) {
        (Some(lease), _) if lease.owner != owner && lease.until > now => {
            return (None, Acquired::Held(lease));
        }
        (Some(lease), _) if lease.owner != owner => return (None, wait(lease.until)),
        (None, _) if chain.attempts > 0 => return (None, wait(now)),
        (None, Some(until)) if until > now => return (None, wait(until)),
        _ => {}
    }
    let next = Chain {
        lease: Some(Lease {
            owner,
            until: now + LEASE,
        }),
        attempts: 1,
        attempted_at: Some(now),
        ..chain.clone()
    };
    let ticket = Ticket {
        install: chain.install,
        generation: chain.generation,
        owner,
        candidates: Vec::new(),
    };
    (Some(next), Acquired::Go(ticket))
}

/// Saves a pair that Slack issued for this ticket, whoever holds the lease by now.
pub(crate) fn commit(
    chain: Option<&Chain>,
    ticket: &Ticket,
    fresh: &Fresh,
) -> (Option<Chain>, Committed) {
    let Some(chain) = chain else {
        return (None, Committed::Orphan);
    };
    // An earlier try was carried out, and its answer lost. It is written again, since the
    // database may have said that it was not safe there yet.
    if chain.refresh == Some(fresh.refresh) {
        return (Some(chain.clone()), Committed::Saved);
    }
    if chain.install != ticket.install {
        return (None, Committed::Orphan);
    }
    if chain.alternates.contains(&fresh.refresh) {
        return (Some(chain.clone()), Committed::Alternate);
    }
    let mut next = without_lease(chain, ticket);
    next.is_dead = false;
    if chain.generation != ticket.generation {
        next.alternates.push(fresh.refresh);
        return (Some(next), Committed::Alternate);
    }
    next.alternates
        .retain(|mark| !ticket.candidates.contains(mark));
    next.generation += 1;
    next.refresh = Some(fresh.refresh);
    next.issued_at = fresh.issued_at;
    next.expires_at = fresh.expires_at;
    next.attempts = 0;
    next.attempted_at = None;
    next.retry_at = None;
    next.failures = 0;
    next.last_error = None;
    next.idle = match fresh.is_ahead {
        true => chain.idle.saturating_add(1),
        false => 0,
    };
    (Some(next), Committed::Saved)
}

/// Marks the chain dead, if the refresh tokens that Slack refused are all that it has.
pub(crate) fn refuse(
    chain: Option<&Chain>,
    ticket: &Ticket,
    refused: &[Mark],
    error: &Arc<str>,
) -> (Option<Chain>, Refused) {
    let ours = |chain: &&Chain| chain.install == ticket.install;
    let Some(chain) = chain.filter(ours) else {
        return (None, Refused::Moved);
    };
    let mut all = chain.refresh.iter().chain(&chain.alternates);
    if !all.all(|mark| refused.contains(mark)) {
        let next = without_lease(chain, ticket);
        return ((next != *chain).then_some(next), Refused::Moved);
    }
    let next = Chain {
        is_dead: true,
        attempts: 0,
        attempted_at: None,
        retry_at: None,
        failures: chain.failures.saturating_add(1),
        last_error: Some(Arc::clone(error)),
        ..without_lease(chain, ticket)
    };
    (Some(next), Refused::Dead)
}

/// Gives the lease back, if it is still this ticket's.
pub(crate) fn release(
    chain: Option<&Chain>,
    ticket: &Ticket,
    released: &Released,
) -> Option<Chain> {
    let chain = chain.filter(|chain| holds(chain, ticket))?;
    Some(Chain {
        lease: None,
        attempts: chain
            .attempts
            .saturating_sub(u32::from(released.is_definite)),
        retry_at: Some(released.retry_at),
        failures: chain.failures.saturating_add(1),
        last_error: Some(Arc::clone(&released.error)),
        ..chain.clone()
    })
}

/// Notes that somebody asked for the token, so that the next pair is bought ahead.
pub(crate) fn touch(chain: Option<&Chain>) -> Option<Chain> {
    let chain = chain.filter(|chain| chain.idle > 0)?;
    Some(Chain {
        idle: 0,
        ..chain.clone()
    })
}

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
    let scheduled = scheduled(chain.clone(), keep_alive);
    let is_due = scheduled.due_at.is_some_and(|due_at| due_at <= now);
    match is_due && !is_held {
        true => (None, Served::Refresh),
        false => {
            // In whole seconds: what is stored.
            let seconds = |chain: &Chain| chain.due_at.map(to_epoch);
            let moved = seconds(&scheduled) != seconds(chain);
            (moved.then_some(scheduled), Served::Nothing)
        }
    }
}

/// The chain with the time at which a worker should look at it.
///
/// With `keep_alive` its refresh token ends if it is not used.
pub(crate) fn scheduled(chain: Chain, keep_alive: Option<Duration>) -> Chain {
    let soft_at = chain.soft_at();
    let due_at = match (&chain.lease, chain.refresh) {
        _ if chain.is_dead => None,
        (_, None) => None,
        (Some(lease), _) => Some(lease.until),
        _ if chain.attempts > 0 => Some(chain.retry_at.unwrap_or(chain.issued_at)),
        _ if chain.idle >= PARKED => keep_alive.map(|after| chain.issued_at + after),
        _ => soft_at.max(chain.retry_at.filter(|_| soft_at.is_some())),
    };
    Chain { due_at, ..chain }
}

fn holds(chain: &Chain, ticket: &Ticket) -> bool {
    chain.install == ticket.install && chain.lease.is_some_and(|lease| lease.owner == ticket.owner)
}

fn without_lease(chain: &Chain, ticket: &Ticket) -> Chain {
    let lease = chain.lease.filter(|_| !holds(chain, ticket));
    Chain {
        lease,
        ..chain.clone()
    }
}

/// For this long nobody else calls Slack: one call of [`CALL`] at most, one more after a
/// lost answer, and the save.
pub(crate) const LEASE: Duration = Duration::from_secs(15);

/// The longest that an answer of Slack's is waited for. Its SDKs time out after 30 s, but a person
/// waits for ours, and Slack as a rule answers within one.
pub(crate) const CALL: Duration = Duration::from_secs(6);

/// What is left of the lease for the save, when a call is begun late.
pub(crate) const SAVE: Duration = Duration::from_secs(2);

/// A pair that Slack calls expired this soon after it was issued has another trouble than its
/// age, and buying more of them ends with the limit of two live access tokens.
const FORCED: Duration = Duration::from_secs(5 * 60);

/// After two pairs, a day about, that nobody asked for, none is bought ahead.
const PARKED: u32 = 2;
