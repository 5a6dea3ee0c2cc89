//! The refresh protocol: record in, decision out. No I/O, no clock, no randomness.
//!
//! The engine, the exhaustive check and the simulation all run these functions.
//!
//! The lease only saves calls to Slack. What keeps a chain safe is that a pair is saved only over
//! the installation and the generation whose refresh token bought it, and that a pair that comes
//! too late for that is kept beside it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::store::{Chain, InstallId, Lease, Mark, SUSPECT};

mod schedule;
#[cfg(test)]
mod tests;

pub(crate) use schedule::{KEEP_ALIVE, Served, scheduled, serve};

/// What the caller wants of a chain.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Demand {
    /// A token that is not due.
    Current,
    /// Another token than this installation's of this generation: Slack refused that one.
    NewerThan(InstallId, u64),
}

impl Demand {
    /// Whether the chain's token is the one that Slack refused, or an older one.
    pub(crate) fn refuses(self, chain: &Chain) -> bool {
        match self {
            Self::Current => false,
            Self::NewerThan(install, generation) => {
                chain.install == install && chain.generation <= generation
            }
        }
    }
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
pub(crate) struct Issued {
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
    /// How many of the calls that were noted certainly brought nothing.
    pub(crate) fruitless: u32,
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

/// What a caller gets of a chain.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Handout {
    /// Nothing: only a reinstall helps.
    Reinstall,
    /// Its token; with `refresh`, one is to be started.
    Serve { refresh: bool },
    /// The token that a refresh brings. If that fails and the stored token `serves_on`, that one.
    Wait { serves_on: bool },
}

/// What a caller gets of this chain now. If `is_strict`, it waits for the refresh of a token that
/// is due.
pub(crate) fn hand_out(chain: &Chain, demand: Demand, is_strict: bool, now: SystemTime) -> Handout {
    let freshness = freshness(chain, now);
    let is_due = freshness > Freshness::Fresh;
    let may_serve = freshness < Freshness::Hard && !demand.refuses(chain);
    if may_serve && !chain.is_suspect() && !(is_strict && is_due) {
        let is_held = chain.lease.is_some_and(|lease| lease.until > now);
        let is_free = !chain.is_dead && !is_held && waits(chain, now).is_none();
        let refresh = is_free && (is_due || chain.attempts > 0);
        return Handout::Serve { refresh };
    }
    if chain.is_dead || chain.refresh.is_none() {
        return Handout::Reinstall;
    }
    Handout::Wait {
        serves_on: may_serve && !is_strict,
    }
}

/// Until when nobody is to try again. A time further off than anybody writes is the word of a
/// clock that is wrong.
pub(crate) fn waits(chain: &Chain, now: SystemTime) -> Option<SystemTime> {
    let until = chain.retry_at.filter(|until| *until > now)?;
    (until <= now + LONGEST_WAIT).then_some(until)
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
    let is_refused = demand.refuses(chain);
    let freshness = freshness(chain, now);
    // An attempt of unknown outcome is repeated at once, while Slack still takes the token.
    let is_due = is_refused || chain.attempts > 0 || freshness > Freshness::Fresh;
    if !is_due {
        return (None, Acquired::Current);
    }
    if is_refused && freshness < Freshness::Hard && now < chain.issued_at + FORCED {
        let until = chain.issued_at + FORCED;
        let error = Some("refreshed_just_now".into());
        return (None, Acquired::Wait { until, error });
    }
    let error = chain.last_error.clone();
    if chain.is_dead {
        return (None, Acquired::Dead { error });
    }
    let lapsed =
        |lease: &Lease| lease.owner == owner || Some(lease.owner) == watched || lease.until <= now;
    if let Some(lease) = chain.lease.filter(|lease| !lapsed(lease)) {
        return (None, Acquired::Held(lease));
    }
    if let Some(until) = waits(chain, now) {
        return (None, Acquired::Wait { until, error });
    }
    // If the owner has it already, the answer to the same step was lost: no call was made since.
    let is_new = chain.lease.is_none_or(|lease| lease.owner != owner);
    let attempts = chain.attempts.saturating_add(is_new.into());
    let newest_first = chain.alternates.iter().rev().copied();
    let candidates = std::iter::once(refresh).chain(newest_first);
    begin(chain, owner, attempts, candidates.collect(), now)
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
    match (chain.lease, waits(chain, now)) {
        (Some(lease), _) if lease.owner != owner && lease.until > now => {
            return (None, Acquired::Held(lease));
        }
        (Some(lease), _) if lease.owner != owner => return (None, wait(lease.until)),
        (None, _) if chain.attempts > 0 => return (None, wait(now)),
        (None, Some(until)) => return (None, wait(until)),
        _ => {}
    }
    begin(chain, owner, 1, Vec::new(), now)
}

/// Takes the lease and notes the intent.
fn begin(
    chain: &Chain,
    owner: u128,
    attempts: u32,
    candidates: Vec<Mark>,
    now: SystemTime,
) -> (Option<Chain>, Acquired) {
    let until = now + LEASE;
    let next = Chain {
        lease: Some(Lease { owner, until }),
        attempts,
        attempted_at: Some(now),
        ..chain.clone()
    };
    let ticket = Ticket {
        install: chain.install,
        generation: chain.generation,
        owner,
        candidates,
    };
    (Some(next), Acquired::Go(ticket))
}

/// Saves a pair that Slack issued for this ticket, whoever holds the lease by now.
pub(crate) fn commit(
    chain: Option<&Chain>,
    ticket: &Ticket,
    issued: &Issued,
    now: SystemTime,
) -> (Option<Chain>, Committed) {
    let Some(chain) = chain else {
        return (None, Committed::Orphan);
    };
    // An earlier try was carried out, and its answer lost. It is written again, since the
    // database may have said that it was not safe there yet.
    if chain.refresh == Some(issued.refresh) {
        return (Some(chain.clone()), Committed::Saved);
    }
    if chain.install != ticket.install {
        return (None, Committed::Orphan);
    }
    if chain.alternates.contains(&issued.refresh) {
        return (Some(chain.clone()), Committed::Alternate);
    }
    let mut next = without_lease(chain, ticket);
    next.is_dead = false;
    if chain.generation != ticket.generation {
        next.alternates.push(issued.refresh);
        // Of two pairs that were bought with one refresh token Slack may let only one live, and
        // perhaps not the one that stands.
        next.attempts = next.attempts.max(SUSPECT);
        // If that is known to be over, there is something new to try.
        next.retry_at = if chain.expires_at <= Some(chain.issued_at) {
            None
        } else {
            next.retry_at.max(Some(now + CONFIRM))
        };
        return (Some(next), Committed::Alternate);
    }
    next.alternates
        .retain(|mark| !ticket.candidates.contains(mark));
    next.generation += 1;
    next.refresh = Some(issued.refresh);
    next.issued_at = issued.issued_at;
    next.expires_at = issued.expires_at;
    next.attempts = 0;
    next.attempted_at = None;
    next.retry_at = None;
    next.failures = 0;
    next.last_error = None;
    next.idle = if issued.is_ahead {
        chain.idle.saturating_add(1)
    } else {
        0
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
        let mut next = without_lease(chain, ticket);
        // What came of this ticket is known.
        let known = u32::from(holds(chain, ticket));
        next.attempts = chain.attempts.saturating_sub(known);
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

/// Notes one more call to Slack before it is made, since the outcome of those before it is unknown.
/// `None` if the chain has moved on, or the lease is another's by now: then the call is not needed.
pub(crate) fn repeat(chain: Option<&Chain>, ticket: &Ticket, now: SystemTime) -> Option<Chain> {
    let chain = chain.filter(|chain| holds(chain, ticket))?;
    let chain = Some(chain).filter(|chain| chain.generation == ticket.generation)?;
    Some(Chain {
        attempts: chain.attempts.saturating_add(1),
        attempted_at: Some(now),
        ..chain.clone()
    })
}

/// Ends the suspicion that an alternate brought with it: Slack says whether the token of this
/// generation lives. If not, it is replaced at once.
pub(crate) fn confirm(chain: Option<&Chain>, generation: u64, is_alive: bool) -> Option<Chain> {
    let is_ours = |chain: &&Chain| chain.generation == generation && chain.lease.is_none();
    let chain = chain.filter(is_ours).filter(|chain| !chain.is_dead)?;
    // Calls have been made since: those are another reason for suspicion.
    if is_alive && chain.attempted_at.is_some() {
        return None;
    }
    Some(Chain {
        attempts: if is_alive { 0 } else { chain.attempts },
        retry_at: None,
        ..chain.clone()
    })
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
        attempts: chain.attempts.saturating_sub(released.fruitless),
        retry_at: Some(released.retry_at),
        failures: chain.failures.saturating_add(1),
        last_error: Some(Arc::clone(&released.error)),
        ..chain.clone()
    })
}

/// Notes that Slack takes this generation's access token no more, before its time: it is replaced
/// as one that is over. Of a pair that was just saved, and that the chain has nothing beside, not
/// at once: the answer with the pair that lives may be on its way.
pub(crate) fn end(
    chain: Option<&Chain>,
    install: InstallId,
    generation: u64,
    is_new: bool,
    now: SystemTime,
) -> Option<Chain> {
    let is_meant = |chain: &&Chain| {
        chain.install == install && chain.generation == generation && chain.refresh.is_some()
    };
    let chain = chain.filter(is_meant)?;
    let retry_at = if is_new && chain.alternates.is_empty() {
        Some(now + LATE)
    } else {
        chain.retry_at
    };
    let long_ago = chain.issued_at.checked_sub(LONG_AGO);
    Some(Chain {
        expires_at: Some(long_ago.unwrap_or(chain.issued_at)),
        retry_at,
        last_error: Some("token_revoked".into()),
        ..chain.clone()
    })
}

/// Takes the verdict of death back: the refresh tokens that stand are tried again.
pub(crate) fn revive(chain: Option<&Chain>) -> Option<Chain> {
    let chain = chain.filter(|chain| chain.is_dead)?;
    Some(Chain {
        is_dead: false,
        retry_at: None,
        failures: 0,
        last_error: None,
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

/// For this long whoever brought an alternate asks Slack whether the pair that stands lives.
/// After that anybody replaces it.
const CONFIRM: Duration = Duration::from_secs(5);

/// What is left of the lease for the save, when a call is begun late.
pub(crate) const SAVE: Duration = Duration::from_secs(2);

/// A time this long before a token was issued is over by a clock that is hours behind, too.
const LONG_AGO: Duration = Duration::from_secs(24 * 60 * 60);

/// Longer than an answer of Slack's is on its way.
const LATE: Duration = Duration::from_secs(30);

/// Above what [`release`] is ever told.
const LONGEST_WAIT: Duration = Duration::from_secs(10 * 60);

/// A pair that Slack calls expired this soon after it was issued has another trouble than its
/// age, and buying more of them ends with the limit of two live access tokens.
const FORCED: Duration = Duration::from_secs(5 * 60);
