//! The refresh protocol as pure functions: each takes the stored chain and returns a decision. They
//! use no I/O, no clock and no randomness.
//!
//! The engine, the model and the simulation all run these functions.
//!
//! The lease only saves calls to Slack. Two rules protect the tokens of a chain:
//!
//! * A pair is saved only if the chain still has the installation and the generation whose refresh
//!   token bought it.
//! * A pair that arrives too late for that is kept as an alternate.
//!
//! If more than one call was made with a refresh token, Slack may have ended the pair that is
//! saved. Such a pair is *unproven*: the token that bought it stays an alternate until Slack says
//! that the pair is alive.
//!
//! While a process may hold a pair that is not saved yet, the chain is not dead, although Slack
//! refuses every refresh token that is stored.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::store::{Chain, InstallId, Lease, Mark};

mod schedule;
#[cfg(test)]
mod tests;

pub(crate) use schedule::{KEEP_ALIVE, LONG_OUTAGE, Served, scheduled, serve};

/// The token that a caller requires.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Demand {
    /// A token that is not due.
    Current,
    /// Slack refused the token of this installation and generation, so the caller needs a newer
    /// one.
    NewerThan(InstallId, u64),
}

impl Demand {
    /// Returns whether the chain's token is the one that Slack refused, or an older one.
    pub(crate) fn refuses(self, chain: &Chain) -> bool {
        match self {
            Self::Current => false,
            Self::NewerThan(install, generation) => {
                chain.install == install && chain.generation <= generation
            }
        }
    }
}

/// The result of [`acquire`].
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Acquired {
    /// The token is not due.
    Current,
    /// The chain is dead: the app must be installed again.
    Dead { error: Option<Arc<str>> },
    /// The caller holds the lease and must call Slack.
    Go(Ticket),
    /// Slack must be asked first whether the pair is alive.
    Ask,
    /// Another refresh holds the lease.
    Held(Lease),
    /// The chain does not exist.
    Missing,
    /// No refresh is tried before this time, because of Slack's rate limit or the backoff.
    Wait {
        until: SystemTime,
        error: Option<Arc<str>>,
    },
}

/// The state of the chain when a refresh began.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Ticket {
    pub(crate) install: InstallId,
    pub(crate) generation: u64,
    pub(crate) owner: u128,
    /// The refresh tokens to send, in this order.
    pub(crate) candidates: Vec<Mark>,
}

impl Ticket {
    /// Returns whether another pair of the installation was saved since the ticket was issued.
    pub(crate) fn is_overtaken(&self, chain: Option<&Chain>) -> bool {
        chain.is_some_and(|it| it.install == self.install && it.generation != self.generation)
    }
}

/// How a response came, of the calls with one refresh token under one lease.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Response {
    /// To the only call.
    Only,
    /// To the second call. The outcome of the first one is unknown.
    Second,
    /// After the refresh stopped waiting for it. The refresh may be making the second call.
    Late,
}

/// The pair about which Slack is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Asked {
    pub(crate) install: InstallId,
    pub(crate) generation: u64,
    /// The newest alternate. If another one was added since, Slack's answer may be out of date.
    pub(crate) newest: Option<Mark>,
}

impl Asked {
    pub(crate) fn of(chain: &Chain) -> Self {
        Self {
            install: chain.install,
            generation: chain.generation,
            newest: chain.alternates.last().copied(),
        }
    }
}

/// A pair that Slack issued.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Issued {
    pub(crate) refresh: Mark,
    /// The refresh token that bought it. `None` for the exchange of a long-lived token.
    pub(crate) by: Option<Mark>,
    pub(crate) response: Response,
    pub(crate) issued_at: SystemTime,
    pub(crate) expires_at: Option<SystemTime>,
    /// Whether the pair was bought ahead, without a caller that waits for it.
    pub(crate) is_ahead: bool,
}

/// The result of [`commit`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Committed {
    /// Another pair was saved first. The refresh token of this pair is kept as an alternate.
    Alternate,
    /// The chain was deleted or belongs to another installation. The pair must be revoked.
    Orphan,
    /// The pair is the chain's current pair.
    Saved,
}

/// The result of [`refuse`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Refused {
    /// Slack refused every refresh token of the chain, which is now dead.
    Dead,
    /// Slack refused every refresh token of the chain, but until this time, a process may hold
    /// another pair.
    Later(SystemTime),
    /// The chain has changed and must be read again.
    Moved,
}

/// The outcome of a refresh that got no pair, although Slack did not refuse every refresh token.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Released {
    /// How many of the recorded calls certainly issued no pair.
    pub(crate) fruitless: u32,
    /// Whether the response to a recorded call may still come.
    pub(crate) may_come: bool,
    pub(crate) retry_at: SystemTime,
    pub(crate) error: Arc<str>,
}

/// The freshness of an access token, by its age.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Freshness {
    Fresh,
    /// The token is still valid and should be refreshed.
    Soft,
    /// The token has expired or expires within minutes.
    Hard,
}

/// Returns the freshness of the chain's access token.
pub(crate) fn freshness(chain: &Chain, now: SystemTime) -> Freshness {
    let reached = |at: Option<SystemTime>| at.is_some_and(|at| now >= at);
    match (reached(chain.hard_at()), reached(chain.soft_at())) {
        (true, _) => Freshness::Hard,
        (false, true) => Freshness::Soft,
        (false, false) => Freshness::Fresh,
    }
}

/// What a caller gets from a chain.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Handout {
    /// No token: the app must be installed again.
    Reinstall,
    /// The stored token. If `refresh`, a refresh must be started in the background.
    Serve { refresh: bool },
    /// The new token, after a refresh. If the refresh fails and `serves_on` is set, the stored
    /// token.
    Wait { serves_on: bool },
}

/// Decides what a caller gets from this chain now. If `is_strict`, the caller waits for the refresh
/// of a token that is due.
pub(crate) fn hand_out(chain: &Chain, demand: Demand, is_strict: bool, now: SystemTime) -> Handout {
    let freshness = freshness(chain, now);
    let is_due = freshness > Freshness::Fresh;
    let may_serve = freshness < Freshness::Hard && !demand.refuses(chain);
    if may_serve && !chain.is_suspect() && !(is_strict && is_due) {
        let is_held = chain.lease.is_some_and(|lease| lease.until > now);
        let is_free = !chain.is_dead && !is_held && waits(chain, now).is_none();
        let refresh = is_free && (is_due || chain.is_unsettled());
        return Handout::Serve { refresh };
    }
    if chain.is_dead || chain.refresh.is_none() {
        return Handout::Reinstall;
    }
    Handout::Wait {
        serves_on: may_serve && !is_strict,
    }
}

/// Returns the time before which no refresh may be tried, if it is in the future. Ignores a time
/// that is too far in the future: only a wrong clock can have written it.
pub(crate) fn waits(chain: &Chain, now: SystemTime) -> Option<SystemTime> {
    let until = chain.retry_at.filter(|until| *until > now)?;
    (until <= now + LONGEST_WAIT).then_some(until)
}

/// Takes the lease and records a call, if the chain needs a refresh and no other refresh holds the
/// lease.
///
/// `watched` is the owner of a lease that the caller has seen for longer than [`LEASE`] on its own
/// monotonic clock. That lease has lapsed, even if the wall clocks disagree.
///
/// `asked` is the pair about which the caller has asked Slack, by its installation and generation.
pub(crate) fn acquire(
    chain: Option<&Chain>,
    demand: Demand,
    owner: u128,
    watched: Option<u128>,
    asked: Option<(InstallId, u64)>,
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
    // A call of unknown outcome is repeated at once, and a pair that is not proven is proven at
    // once, while Slack still accepts the refresh token.
    let is_due = is_refused || chain.is_unsettled() || freshness > Freshness::Fresh;
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
    // Under a lapsed lease, a call may be in progress that ends the pair.
    let is_usable = !is_refused && freshness < Freshness::Hard && chain.lease.is_none();
    if chain.is_unproven && is_usable && asked != Some((chain.install, chain.generation)) {
        return (None, Acquired::Ask);
    }
    if let Some(until) = waits(chain, now) {
        return (None, Acquired::Wait { until, error });
    }
    // If this owner already has the lease, the database applied this step before and its response
    // was lost. No call was made since, so none is counted.
    let is_new = chain.lease.is_none_or(|lease| lease.owner != owner);
    let attempts = chain.attempts.saturating_add(is_new.into());
    let newest_first = chain.alternates.iter().rev().copied();
    let candidates = std::iter::once(refresh).chain(newest_first);
    begin(chain, owner, attempts, candidates.collect(), now)
}

/// Takes the lease and records the call for the exchange of a long-lived token. Slack accepts such
/// a token once, so a chain with a call of unknown outcome is not tried again.
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

/// Takes the lease, sets the number of recorded calls, and issues the ticket.
fn begin(
    chain: &Chain,
    owner: u128,
    attempts: u32,
    candidates: Vec<Mark>,
    now: SystemTime,
) -> (Option<Chain>, Acquired) {
    let until = now + LEASE;
    // The process that did not release its lease may hold a pair.
    let is_taken = chain.lease.is_some_and(|lease| lease.owner != owner);
    let unheard_at = chain.attempted_at.filter(|_| is_taken);
    let next = Chain {
        lease: Some(Lease { owner, until }),
        attempts,
        attempted_at: Some(now),
        unheard_at: unheard_at.or(chain.unheard_at),
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

/// Saves a pair that Slack issued for this ticket. The lease does not matter: another process may
/// hold it.
///
/// If another call was made with the refresh token, Slack may have ended this pair.
pub(crate) fn commit(
    chain: Option<&Chain>,
    ticket: &Ticket,
    issued: &Issued,
    now: SystemTime,
) -> (Option<Chain>, Committed) {
    let Some(chain) = chain else {
        return (None, Committed::Orphan);
    };
    // An earlier try was applied and its response was lost. The chain is written again, because the
    // database may have reported that the earlier write is not durable yet.
    let mut next = if issued.response == Response::Late {
        chain.clone()
    } else {
        without_lease(chain, ticket)
    };
    let is_spent_again = chain.spent.is_some() && issued.by == chain.spent;
    if chain.refresh == Some(issued.refresh) {
        if is_spent_again && chain.generation == ticket.generation {
            // The spent token was sent again and bought the stored pair again: it buys no other.
            next = without_spent(next);
        }
        return (Some(next), Committed::Saved);
    }
    if chain.install != ticket.install {
        return (None, Committed::Orphan);
    }
    if chain.alternates.contains(&issued.refresh) {
        return (Some(next), Committed::Alternate);
    }
    next.is_dead = false;
    let is_over = chain.expires_at <= Some(chain.issued_at);
    if chain.generation != ticket.generation {
        next.alternates.push(issued.refresh);
        // If one refresh token bought two pairs, Slack may keep only one of them alive, and
        // perhaps not the stored one.
        next.is_unproven = true;
        // If the stored token is known to have ended, the new alternate is tried at once.
        next.retry_at = if is_over || is_awaited(chain) {
            None
        } else {
            next.retry_at.max(Some(now + CONFIRM))
        };
        return (Some(next), Committed::Alternate);
    }
    next.alternates
        .retain(|mark| !ticket.candidates.contains(mark));
    // A late pair came during this refresh. Slack may have ended this pair when it issued that one.
    let is_doubtful = !next.alternates.is_empty();
    let is_repeated = chain.attempts > 1 || issued.response != Response::Only;
    // A token that was sent once more because its pair was dead is not kept again: its next pair
    // would not be alive either.
    next.spent = issued.by.filter(|_| is_repeated);
    // It is the oldest alternate, so it is sent last: under some rules of Slack, it ends the others.
    next.alternates.splice(..0, next.spent);
    next.is_unproven = next.spent.is_some() || is_spent_again || is_doubtful;
    next.generation += 1;
    next.refresh = Some(issued.refresh);
    next.issued_at = issued.issued_at;
    next.expires_at = issued.expires_at;
    if next.lease.is_some() {
        // Another call is in progress.
        next.unheard_at = chain.attempted_at.or(chain.unheard_at);
    }
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

/// Marks the chain dead, if Slack has refused all refresh tokens that the chain has. While a process
/// may still hold a pair of an earlier call, the chain waits for it instead.
pub(crate) fn refuse(
    chain: Option<&Chain>,
    ticket: &Ticket,
    refused: &[Mark],
    error: &Arc<str>,
    now: SystemTime,
) -> (Option<Chain>, Refused) {
    let ours = |chain: &&Chain| chain.install == ticket.install;
    let Some(chain) = chain.filter(ours) else {
        return (None, Refused::Moved);
    };
    let mut all = chain.refresh.iter().chain(&chain.alternates);
    if !all.all(|mark| refused.contains(mark)) {
        let next = known(chain, ticket);
        return ((next != *chain).then_some(next), Refused::Moved);
    }
    // Slack ended the pair that was not proven, so its access token is not handed out.
    let long_ago = chain.issued_at.checked_sub(LONG_AGO);
    let ended = chain
        .is_unproven
        .then_some(long_ago.unwrap_or(chain.issued_at));
    let is_others = chain.lease.is_some() && !holds(chain, ticket);
    let running = chain.attempted_at.filter(|_| is_others);
    let refused = Chain {
        expires_at: ended.or(chain.expires_at),
        is_unproven: false,
        unheard_at: chain.unheard_at.max(running),
        failures: chain.failures.saturating_add(1),
        last_error: Some(Arc::clone(error)),
        ..known(chain, ticket)
    };
    if let Some(until) = held_until(&refused, now) {
        let next = Chain {
            retry_at: Some(until),
            ..refused
        };
        return (Some(next), Refused::Later(until));
    }
    let next = Chain {
        is_dead: true,
        attempts: 0,
        attempted_at: None,
        retry_at: None,
        ..refused
    };
    (Some(next), Refused::Dead)
}

/// Returns the time until which a process may hold a pair that is not saved, if it is in the future.
/// Ignores a time that only a wrong clock can have written.
fn held_until(chain: &Chain, now: SystemTime) -> Option<SystemTime> {
    let until = chain.unheard_at? + HOLDS;
    (until > now && until <= now + LONGEST_WAIT).then_some(until)
}

/// Returns whether the chain waits for a pair that a process may hold.
fn is_awaited(chain: &Chain) -> bool {
    let until = chain.unheard_at.map(|at| at + HOLDS);
    until.is_some() && chain.retry_at == until
}

/// Releases the ticket's lease. The outcome of the last recorded call is known, if it was the
/// ticket's.
fn known(chain: &Chain, ticket: &Ticket) -> Chain {
    if !holds(chain, ticket) {
        return chain.clone();
    }
    Chain {
        lease: None,
        attempts: chain.attempts.saturating_sub(1),
        ..chain.clone()
    }
}

/// Records one more call to Slack before it is made, after calls whose outcome is unknown. Returns
/// `None` if the chain has changed or the ticket no longer holds the lease: then no call is needed.
///
/// If `may_come`, a response to an earlier call may still come.
pub(crate) fn repeat(
    chain: Option<&Chain>,
    ticket: &Ticket,
    may_come: bool,
    now: SystemTime,
) -> Option<Chain> {
    let chain = chain.filter(|chain| holds(chain, ticket))?;
    let chain = Some(chain).filter(|chain| chain.generation == ticket.generation)?;
    Some(Chain {
        attempts: chain.attempts.saturating_add(1),
        attempted_at: Some(now),
        unheard_at: unheard_at(chain, may_come),
        ..chain.clone()
    })
}

/// Returns when the last call was recorded whose pair a process may hold, if the response to the
/// last call may come.
fn unheard_at(chain: &Chain, may_come: bool) -> Option<SystemTime> {
    let last = chain.attempted_at.filter(|_| may_come);
    last.or(chain.unheard_at)
}

/// Releases the lease of a ticket whose pair was replaced by a late response to one of its own
/// calls. The new pair can be refreshed at once.
pub(crate) fn step_back(chain: Option<&Chain>, ticket: &Ticket) -> Option<Chain> {
    let overtaken = chain.filter(|_| ticket.is_overtaken(chain));
    let chain = overtaken.filter(|chain| holds(chain, ticket))?;
    Some(without_lease(chain, ticket))
}

/// Records that Slack calls this pair alive: it is proven.
///
/// A refresh that holds the lease may be making a call that ends the pair. A pair that arrived late
/// since Slack was asked may have ended it too. The pair then stays unproven.
pub(crate) fn prove(chain: Option<&Chain>, asked: Asked) -> Option<Chain> {
    let chain = chain.filter(|chain| Asked::of(chain) == asked)?;
    (chain.is_unproven && chain.lease.is_none()).then(|| Chain {
        is_unproven: false,
        retry_at: None,
        ..without_spent(chain.clone())
    })
}

/// Returns the chain without the token that bought its pair.
fn without_spent(mut chain: Chain) -> Chain {
    let spent = chain.spent.take();
    chain.alternates.retain(|mark| Some(*mark) != spent);
    chain
}

/// Releases the lease and stores the failure, if the ticket still holds the lease.
pub(crate) fn release(
    chain: Option<&Chain>,
    ticket: &Ticket,
    released: &Released,
) -> Option<Chain> {
    let chain = chain.filter(|chain| holds(chain, ticket))?;
    Some(Chain {
        lease: None,
        attempts: chain.attempts.saturating_sub(released.fruitless),
        unheard_at: unheard_at(chain, released.may_come),
        retry_at: Some(released.retry_at),
        failures: chain.failures.saturating_add(1),
        last_error: Some(Arc::clone(&released.error)),
        ..chain.clone()
    })
}

/// Records that Slack revoked this access token early. It is then refreshed as if it had expired.
///
/// If the pair was not proven and the chain has no alternate, the refresh waits for [`LATE`]: a
/// late response may still bring the pair that is alive.
pub(crate) fn end(
    chain: Option<&Chain>,
    install: InstallId,
    generation: u64,
    was_unproven: bool,
    now: SystemTime,
) -> Option<Chain> {
    let chain = chain?;
    let ended = over(chain, install, generation, "token_revoked")?;
    let retry_at = match (was_unproven, chain.alternates.is_empty()) {
        (true, true) => Some(now + LATE),
        (true, false) => None,
        (false, _) => chain.retry_at,
    };
    Some(Chain { retry_at, ..ended })
}

/// Records that this access token leaked. It is then refreshed as if it had expired, at once.
pub(crate) fn condemn(chain: Option<&Chain>, install: InstallId, generation: u64) -> Option<Chain> {
    let chain = over(chain?, install, generation, "rotated_on_demand")?;
    Some(Chain {
        retry_at: None,
        ..chain
    })
}

/// Sets the expiry of this access token into the past.
fn over(chain: &Chain, install: InstallId, generation: u64, error: &str) -> Option<Chain> {
    let is_meant =
        chain.install == install && chain.generation == generation && chain.refresh.is_some();
    let long_ago = chain.issued_at.checked_sub(LONG_AGO);
    is_meant.then(|| Chain {
        expires_at: Some(long_ago.unwrap_or(chain.issued_at)),
        // The code of a dead chain says why Slack refused its refresh tokens.
        last_error: match &chain.last_error {
            Some(refusal) if chain.is_dead => Some(Arc::clone(refusal)),
            _ => Some(error.into()),
        },
        ..chain.clone()
    })
}

/// Clears a chain's dead mark, so that its refresh tokens are tried again.
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

/// Records that a caller used the token, so that the next pair is bought ahead.
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

/// The length of a lease, during which no other process calls Slack. Covers one call of up to
/// [`CALL`], a second one after a lost response, and the save.
pub(crate) const LEASE: Duration = Duration::from_secs(15);

/// The timeout of a call to Slack. Slack's SDKs use 30 s, but here a user waits, and Slack normally
/// responds within 1 s.
pub(crate) const CALL: Duration = Duration::from_secs(6);

/// After another pair became an alternate, the stored pair is not refreshed for this long if Slack
/// does not say whether it is alive.
const CONFIRM: Duration = Duration::from_secs(5);

/// The part of the lease that is reserved for the save: a call that would leave less is not made.
pub(crate) const SAVE: Duration = Duration::from_secs(2);

/// A revoked token's expiry is set this long before its issue, so that it has expired even on a
/// clock that is hours behind.
const LONG_AGO: Duration = Duration::from_secs(24 * 60 * 60);

/// Longer than a response of Slack takes to arrive.
const LATE: Duration = Duration::from_secs(30);

/// Longer than a process holds a pair of a call, after the call was recorded: the response takes up
/// to 15 s, and the save is tried for 10 minutes.
pub(crate) const HOLDS: Duration = Duration::from_secs(11 * 60);

/// Longer than any wait that [`release`] or [`refuse`] stores.
const LONGEST_WAIT: Duration = Duration::from_secs(12 * 60);

/// If Slack calls a pair expired this soon after its issue, the cause is not its age. Buying more
/// pairs would not help, and would revoke tokens by the limit of two live access tokens.
const FORCED: Duration = Duration::from_secs(5 * 60);
