//! Checks parked chains exhaustively. The first worker acts in the background, the second for a
//! caller.
//!
//! If two pairs in a row were idle, no further pair is bought ahead, except to keep the chain
//! alive. A call of unknown outcome is still repeated, because a caller that returns after days
//! would be too late for the grace.

use super::{
    Budget, DAY, FORGOTTEN, First, PARKED, Protocol, REUSES, Reuse, SHIPPED, State, UNHEARD, clean,
    now, search,
};
use crate::rotation::protocol::{self, Released, Served};
use crate::store::Chain;

const SOME: Budget = Budget {
    uses: 3,
    crashes: 1,
    lost: 1,
    late: 0,
    reinstalls: 0,
    uninstalls: 0,
    lapses: 1,
    touches: 0,
};

const NO_KEEPER: First = First::Worker { keeps_alive: false };

const KEEPER: First = First::Worker { keeps_alive: true };

fn check(idle: u32, first: First, budget: Budget, least: usize) {
    for reuse in REUSES {
        let states = clean(&State::first(2, budget, first, idle), reuse);
        assert!(states > least, "{states} states: the search stopped early");
    }
}

#[test]
fn a_lost_call_of_a_parked_chain_is_repeated_by_the_worker() {
    check(PARKED, NO_KEEPER, SOME, 1_000);
}

#[test]
fn a_chain_that_is_kept_alive_loses_nothing() {
    check(PARKED, KEEPER, SOME, 1_000);
}

/// One more call, and a caller that uses the chain.
const USED: Budget = Budget {
    uses: 4,
    touches: 1,
    ..SOME
};

/// A reinstall, and a caller that uses the chain.
const REINSTALLED: Budget = Budget {
    reinstalls: 1,
    touches: 1,
    ..SOME
};

#[test]
#[ignore = "needs an optimised build; scripts/test runs it"]
fn a_chain_that_comes_to_be_parked_loses_nothing() {
    check(0, NO_KEEPER, USED, 10_000);
    check(0, NO_KEEPER, REINSTALLED, 10_000);
}

#[test]
#[ignore = "needs an optimised build; scripts/test runs it"]
fn a_chain_that_comes_to_be_parked_and_is_kept_alive_loses_nothing() {
    check(PARKED - 1, KEEPER, USED, 10_000);
    check(PARKED - 1, KEEPER, REINSTALLED, 10_000);
}

/// All of these at once. It takes minutes also with optimisation, so only scripts/test-long runs it.
#[test]
#[ignore = "takes minutes; scripts/test-long runs it"]
fn all_events_together_lose_nothing_of_a_chain_that_comes_to_be_parked() {
    let all = Budget {
        reinstalls: 1,
        ..USED
    };
    check(0, NO_KEEPER, all, 10_000);
    check(PARKED - 1, KEEPER, all, 10_000);
}

/// Returns whether the search finds this violation in a mutant, for a parked chain.
fn finds(mutant: Protocol, first: First, wrong: &str) -> bool {
    let first = State::first(2, SOME, first, PARKED);
    let (_, wrongs) = search(&first, &mutant, Reuse::AllLive, Some(wrong));
    wrongs.contains_key(wrong)
}

#[test]
fn a_mutant_whose_worker_leaves_the_lost_call_of_a_parked_chain_is_caught() {
    let serve = |chain: Option<&Chain>, now, keep_alive| match chain {
        Some(chain) if chain.idle >= PARKED && chain.lease.is_none() => (None, Served::Nothing),
        _ => protocol::serve(chain, now, keep_alive),
    };
    for wrong in [UNHEARD, FORGOTTEN] {
        assert!(
            finds(Protocol { serve, ..SHIPPED }, NO_KEEPER, wrong),
            "{wrong}"
        );
    }
}

#[test]
fn a_mutant_whose_worker_leaves_the_lapsed_lease_of_a_parked_chain_is_caught() {
    let serve = |chain: Option<&Chain>, now, keep_alive| match chain {
        Some(chain) if chain.idle >= PARKED && chain.lease.is_some() => (None, Served::Nothing),
        _ => protocol::serve(chain, now, keep_alive),
    };
    assert!(finds(Protocol { serve, ..SHIPPED }, NO_KEEPER, UNHEARD));
}

#[test]
fn a_mutant_whose_worker_buys_ahead_for_a_parked_chain_is_caught() {
    let serve = |chain: Option<&Chain>, now, _| protocol::serve(chain, now, Some(20 * DAY));
    assert!(finds(Protocol { serve, ..SHIPPED }, NO_KEEPER, FORGOTTEN));
}

#[test]
fn a_mutant_whose_worker_keeps_no_chain_alive_is_caught() {
    let serve = |chain: Option<&Chain>, now, _| protocol::serve(chain, now, None);
    assert!(finds(Protocol { serve, ..SHIPPED }, KEEPER, FORGOTTEN));
}

#[test]
fn a_mutant_that_takes_a_lost_call_back_when_it_gives_up_is_caught() {
    let release = |chain: Option<&Chain>, ticket: &_, _, _| {
        let released = Released {
            fruitless: u32::MAX,
            may_come: false,
            retry_at: now(),
            error: "lost".into(),
        };
        protocol::release(chain, ticket, &released)
    };
    assert!(finds(Protocol { release, ..SHIPPED }, NO_KEEPER, UNHEARD));
}

#[test]
fn a_mutant_that_does_not_note_the_repeated_call_is_caught() {
    let repeat = |chain: Option<&Chain>, ticket: &_, may_come| {
        let next = protocol::repeat(chain, ticket, may_come, now())?;
        let attempts = next.attempts - 1;
        Some(Chain { attempts, ..next })
    };
    assert!(finds(Protocol { repeat, ..SHIPPED }, NO_KEEPER, UNHEARD));
}
