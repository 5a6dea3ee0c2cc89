//! Mutants of the protocol. The search must find a violation in each of them.

use super::{
    Budget, EARLY_DEATH, FALSE_DEATH, First, LOST, NO_CRASH, PROVEN_DEAD, Protocol, RESURRECTED,
    REUSES, Reuse, SHIPPED, State, WITHOUT_LEASE, at, clean, now, record, search,
};
use crate::rotation::protocol::{self, Acquired, Asked, Committed, Issued, Response, Ticket};
use crate::store::{Chain, Mark};

/// Returns whether the search finds this violation in a mutant, for any way in which Slack treats
/// reuse.
fn finds(mutant: Protocol, wrong: &str) -> bool {
    REUSES.into_iter().rev().any(|reuse| {
        let first = State::first(2, SHORT, First::Caller, 0);
        let (_, wrongs) = search(&first, &mutant, reuse, Some(wrong));
        wrongs.contains_key(wrong)
    })
}

const SHORT: Budget = Budget {
    uses: 3,
    lost: 0,
    ..NO_CRASH
};

#[test]
#[ignore = "needs an optimised build; scripts/test runs it"]
fn the_protocol_as_it_is_shipped_has_nothing_of_the_mutants() {
    for reuse in REUSES {
        clean(&State::first(2, SHORT, First::Caller, 0), reuse);
    }
}

#[test]
fn a_mutant_that_drops_the_alternate_is_caught() {
    let commit = |chain: Option<&Chain>, ticket: &Ticket, fresh: &Issued| match (SHIPPED.commit)(
        chain, ticket, fresh,
    ) {
        (_, Committed::Alternate) => (None, Committed::Alternate),
        outcome => outcome,
    };
    assert!(finds(Protocol { commit, ..SHIPPED }, LOST));
}

#[test]
fn a_mutant_that_saves_over_whatever_stands_is_caught() {
    let commit = |chain: Option<&Chain>, ticket: &Ticket, fresh: &Issued| {
        // Uses the record that was read before the call, and ignores the stored one.
        let mut read = chain.cloned().unwrap_or_else(|| record(0, 0));
        read.install = ticket.install;
        read.generation = ticket.generation;
        (SHIPPED.commit)(Some(&read), ticket, fresh)
    };
    for wrong in [LOST, RESURRECTED] {
        assert!(finds(Protocol { commit, ..SHIPPED }, wrong), "{wrong}");
    }
}

#[test]
fn a_mutant_that_saves_over_another_installation_is_caught() {
    let commit = |chain: Option<&Chain>, ticket: &Ticket, fresh: &Issued| {
        let install = chain.map_or(ticket.install, |chain| chain.install);
        (SHIPPED.commit)(
            chain,
            &Ticket {
                install,
                ..ticket.clone()
            },
            fresh,
        )
    };
    assert!(finds(Protocol { commit, ..SHIPPED }, LOST));
}

#[test]
fn a_mutant_that_wants_the_lease_to_save_is_caught() {
    let commit = |chain: Option<&Chain>, ticket: &Ticket, fresh: &Issued| {
        let lease = chain.and_then(|chain| chain.lease);
        if lease.is_some_and(|lease| lease.owner == ticket.owner) {
            (SHIPPED.commit)(chain, ticket, fresh)
        } else {
            (None, Committed::Orphan)
        }
    };
    assert!(finds(Protocol { commit, ..SHIPPED }, LOST));
}

#[test]
fn a_mutant_that_forgets_every_alternate_when_it_saves_is_caught() {
    let commit = |chain: Option<&Chain>, ticket: &Ticket, fresh: &Issued| {
        let (next, answer) = (SHIPPED.commit)(chain, ticket, fresh);
        let forget = answer == Committed::Saved;
        let forgotten = next.map(|mut next| {
            next.alternates.retain(|_| !forget);
            next
        });
        (forgotten, answer)
    };
    let mutant = Protocol { commit, ..SHIPPED };
    let budget = Budget {
        lost: 0,
        ..NO_CRASH
    };
    let first = State::first(2, budget, First::Caller, 0);
    let (_, wrongs) = search(&first, &mutant, Reuse::NewestOnly, Some(LOST));
    assert!(wrongs.contains_key(LOST));
}

#[test]
fn a_mutant_that_marks_a_chain_dead_without_a_second_look_is_caught() {
    let refuse = |chain: Option<&Chain>, ticket: &Ticket, _: &[Mark]| {
        let everything: Vec<_> = (0..100).map(Mark).collect();
        let later = now() + protocol::HOLDS;
        protocol::refuse(chain, ticket, &everything, &"refused".into(), later)
    };
    assert!(finds(Protocol { refuse, ..SHIPPED }, FALSE_DEATH));
}

#[test]
fn a_mutant_that_marks_a_chain_dead_while_a_process_holds_a_pair_is_caught() {
    let refuse = |chain: Option<&Chain>, ticket: &Ticket, refused: &[Mark]| {
        let later = now() + protocol::HOLDS;
        protocol::refuse(chain, ticket, refused, &"refused".into(), later)
    };
    assert!(finds(Protocol { refuse, ..SHIPPED }, EARLY_DEATH));
}

#[test]
fn a_mutant_that_forgets_the_call_before_a_takeover_is_caught() {
    let acquire = |chain: Option<&Chain>, owner, asked| {
        let (next, acquired) = (SHIPPED.acquire)(chain, owner, asked);
        let unheard_at = chain.and_then(|chain| chain.unheard_at);
        (next.map(|next| Chain { unheard_at, ..next }), acquired)
    };
    assert!(finds(Protocol { acquire, ..SHIPPED }, EARLY_DEATH));
}

#[test]
fn a_mutant_that_proves_a_pair_by_an_answer_from_before_a_late_pair_is_caught() {
    let prove = |chain: Option<&Chain>, asked| {
        let newest = chain.and_then(|chain| chain.alternates.last().copied());
        (SHIPPED.prove)(chain, Asked { newest, ..asked })
    };
    assert!(finds(Protocol { prove, ..SHIPPED }, PROVEN_DEAD));
}

#[test]
fn a_mutant_that_gives_back_whosever_lease_is_caught() {
    let release = |chain: Option<&Chain>, _: &Ticket, _, _| {
        chain.map(|chain| Chain {
            lease: None,
            ..chain.clone()
        })
    };
    let mutant = Protocol { release, ..SHIPPED };
    let first = State::first(3, SHORT, First::Caller, 0);
    let (_, wrongs) = search(&first, &mutant, Reuse::AllLive, Some(WITHOUT_LEASE));
    assert!(wrongs.contains_key(WITHOUT_LEASE), "{:?}", wrongs.keys());
}

#[test]
fn a_mutant_that_calls_before_it_writes_the_intent_is_caught() {
    let acquire = |chain: Option<&Chain>, owner, asked| {
        let (_, acquired) = (SHIPPED.acquire)(chain, owner, asked);
        (None, acquired)
    };
    assert!(finds(Protocol { acquire, ..SHIPPED }, WITHOUT_LEASE));
}

#[test]
fn a_mutant_that_writes_where_nothing_stands_is_caught() {
    let commit = |chain: Option<&Chain>, ticket: &Ticket, fresh: &Issued| match chain {
        Some(chain) => (SHIPPED.commit)(Some(chain), ticket, fresh),
        None => (Some(record(0, at(fresh.refresh))), Committed::Saved),
    };
    assert!(finds(Protocol { commit, ..SHIPPED }, RESURRECTED));
}

/// The database may have reported that the pair is not durable yet. Only another write can confirm
/// it.
#[test]
fn a_pair_that_stands_already_is_written_again() {
    let (mut chain, acquired) = (SHIPPED.acquire)(Some(&record(0, 0)), 1, None);
    let Acquired::Go(ticket) = acquired else {
        panic!("the chain is due, so the lease must be taken: {acquired:?}")
    };
    for expected in [Committed::Saved, Committed::Alternate] {
        let fresh = Issued {
            refresh: Mark(7 + u64::from(expected == Committed::Alternate)),
            issued_at: now(),
            expires_at: Some(now()),
            is_ahead: false,
            by: None,
            response: Response::Only,
        };
        let (next, answer) = protocol::commit(chain.as_ref(), &ticket, &fresh, now());
        assert_eq!(answer, expected);
        assert_eq!(
            protocol::commit(next.as_ref(), &ticket, &fresh, now()),
            (next.clone(), expected),
            "the same chain must be written again"
        );
        chain = next;
    }
}
