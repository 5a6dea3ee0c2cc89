//! Checks the exchange of a long-lived token for a rotating pair exhaustively.
//!
//! Slack accepts each token once, without a grace. Two rules must hold:
//!
//! * A token is never sent twice, unless Slack certainly issued nothing the first time.
//! * A pair that arrived is stored. If its installation no longer exists, the pair is revoked.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::{FORGOTTEN, LOST, RESURRECTED, is_forgotten, now, record};
use crate::rotation::protocol::{self, Acquired, Committed, Issued, Released, Response, Ticket};
use crate::store::{Chain, InstallId, Lease, Mark};

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Doing {
    Nothing,
    Calls(Ticket),
    Got(Ticket),
    /// The call failed. The flag says whether Slack certainly issued nothing.
    Failed(Ticket, bool),
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct State {
    record: Option<Chain>,
    /// How many times the token was sent and Slack may have accepted it.
    sent: u8,
    /// Whether Slack has issued the pair.
    issued: bool,
    given_back: bool,
    workers: Vec<Doing>,
    wrong: Option<&'static str>,
    /// The number of attempts so far. Each attempt has its own owner.
    tries: u8,
    crashes: u8,
    lost: u8,
    refusals: u8,
    moves: u8,
    lapses: u8,
}

type Acquire = fn(Option<&Chain>, u128) -> (Option<Chain>, Acquired);
type Commit = fn(Option<&Chain>, &Ticket, &Issued) -> (Option<Chain>, Committed);
type Release = fn(Option<&Chain>, &Ticket, bool) -> Option<Chain>;

/// The functions under test, and mutants of them.
#[derive(Clone, Copy)]
struct Protocol {
    acquire: Acquire,
    commit: Commit,
    release: Release,
}

const SHIPPED: Protocol = Protocol {
    acquire: |chain, owner| protocol::acquire_exchange(chain, owner, now()),
    commit: |chain, ticket, fresh| protocol::commit(chain, ticket, fresh, now()),
    release: |chain, ticket, is_definite| {
        let error: Arc<str> = "failed".into();
        let released = Released {
            fruitless: is_definite.into(),
            may_come: !is_definite,
            retry_at: now(),
            error,
        };
        protocol::release(chain, ticket, &released)
    },
};

const TWICE: &str = "a token was sent twice, but Slack may have accepted it the first time";

/// The refresh token of the new pair.
const PAIR: Mark = Mark(1);

/// A step from one state to the next.
type Change<'c> = &'c mut dyn FnMut(&mut State);

impl State {
    fn first(workers: usize) -> Self {
        let long_lived = Chain {
            refresh: None,
            expires_at: None,
            ..record(0, 0)
        };
        Self {
            record: Some(long_lived),
            sent: 0,
            issued: false,
            given_back: false,
            workers: vec![Doing::Nothing; workers],
            wrong: None,
            tries: 0,
            crashes: 1,
            lost: 1,
            refusals: 2,
            moves: 1,
            lapses: 2,
        }
    }

    fn write(&mut self, next: Option<Chain>) {
        if let Some(next) = next {
            if self.record.is_none() {
                self.wrong = Some(RESURRECTED);
            }
            if is_forgotten(protocol::serve, &next) {
                self.wrong = Some(FORGOTTEN);
            }
            self.record = Some(Chain {
                failures: 0,
                last_error: None,
                ..next
            });
        }
    }

    fn next(&self, protocol: &Protocol) -> Vec<Self> {
        let mut next = Vec::new();
        let mut step = |change: &mut dyn FnMut(&mut Self)| {
            let mut state = self.clone();
            change(&mut state);
            next.push(state);
        };
        let chain = self.record.as_ref();
        let lease = chain.and_then(|chain| chain.lease);
        if lease.is_some_and(|lease| lease.until > now()) && self.lapses > 0 {
            step(&mut |state| {
                state.lapses -= 1;
                let chain = state.record.as_mut().expect("the chain has a lease");
                chain.lease = lease.map(|lease| Lease {
                    until: now(),
                    ..lease
                });
            });
        }
        if self.moves > 0 && chain.is_some_and(|chain| chain.install == InstallId(0)) {
            step(&mut |state| {
                state.moves -= 1;
                state.record = None;
            });
            step(&mut |state| {
                state.moves -= 1;
                state.record = Some(record(1, 9));
            });
        }
        for number in 0..self.workers.len() {
            if self.workers[number] != Doing::Nothing && self.crashes > 0 {
                step(&mut |state| {
                    state.crashes -= 1;
                    state.workers[number] = Doing::Nothing;
                });
            }
            self.work(protocol, number, &mut step);
        }
        next
    }

    /// Adds the possible next steps of one worker. They follow the engine.
    fn work(&self, protocol: &Protocol, number: usize, step: &mut dyn FnMut(Change<'_>)) {
        let chain = self.record.as_ref();
        match &self.workers[number] {
            Doing::Nothing => {
                let owner = u128::from(self.tries) + 1;
                if let (next, Acquired::Go(ticket)) = (protocol.acquire)(chain, owner) {
                    step(&mut |state| {
                        state.tries += 1;
                        state.write(next.clone());
                        state.workers[number] = Doing::Calls(ticket.clone());
                    });
                }
            }
            Doing::Calls(ticket) => {
                let send = |state: &mut Self| {
                    state.wrong = state.wrong.or_else(|| (state.sent > 0).then_some(TWICE));
                    state.sent += 1;
                    state.issued = true;
                };
                let failed = |is_definite| Doing::Failed(ticket.clone(), is_definite);
                step(&mut |state| {
                    send(state);
                    state.workers[number] = Doing::Got(ticket.clone());
                });
                if self.lost > 0 {
                    step(&mut |state| {
                        send(state);
                        state.lost -= 1;
                        state.workers[number] = failed(false);
                    });
                }
                if self.refusals > 0 {
                    step(&mut |state| {
                        state.refusals -= 1;
                        state.workers[number] = failed(true);
                    });
                }
            }
            Doing::Got(ticket) => {
                let fresh = Issued {
                    refresh: PAIR,
                    issued_at: now(),
                    expires_at: Some(now()),
                    is_ahead: false,
                    by: None,
                    response: Response::Only,
                };
                let (next, committed) = (protocol.commit)(chain, ticket, &fresh);
                step(&mut |state| {
                    state.write(next.clone());
                    state.given_back |= committed == Committed::Orphan;
                    state.workers[number] = Doing::Nothing;
                });
            }
            Doing::Failed(ticket, is_definite) => {
                let next = (protocol.release)(chain, ticket, *is_definite);
                step(&mut |state| {
                    state.write(next.clone());
                    state.workers[number] = Doing::Nothing;
                });
            }
        }
    }

    fn wrong(&self) -> Option<&'static str> {
        let is_quiet = self.workers.iter().all(|doing| *doing == Doing::Nothing);
        let nothing_failed = self.crashes == 1 && self.lost == 1;
        let is_stored = |chain: &Chain| {
            chain.install == InstallId(0)
                && (chain.refresh == Some(PAIR) || chain.alternates.contains(&PAIR))
        };
        let is_kept = self.given_back || self.record.as_ref().is_some_and(is_stored);
        let is_gone = self.moves == 0;
        let is_lost = is_quiet && nothing_failed && self.issued && !is_kept && !is_gone;
        self.wrong.or_else(|| is_lost.then_some(LOST))
    }
}

/// Searches all states. Returns the number of states and all violations.
fn search(protocol: &Protocol, workers: usize) -> (usize, BTreeSet<&'static str>) {
    let mut states = vec![State::first(workers)];
    let mut seen: HashSet<_> = states.iter().cloned().collect();
    let mut wrongs = BTreeSet::new();
    while let Some(state) = states.pop() {
        wrongs.extend(state.wrong());
        for next in state.next(protocol) {
            if seen.insert(next.clone()) {
                states.push(next);
            }
        }
    }
    (seen.len(), wrongs)
}

#[test]
fn no_interleaving_exchanges_a_token_twice_or_loses_its_pair() {
    let (states, wrongs) = search(&SHIPPED, 3);
    println!("exchange, 3 workers: {states} states");
    assert_eq!(wrongs, BTreeSet::new());
    assert!(states > 400, "{states} states: the search stopped early");
}

#[test]
fn a_mutant_that_exchanges_again_when_the_lease_has_lapsed_is_caught() {
    let acquire = |chain: Option<&Chain>, owner: u128| {
        let free = chain.map(|chain| Chain {
            lease: chain.lease.filter(|lease| lease.until > now()),
            attempts: 0,
            ..chain.clone()
        });
        (SHIPPED.acquire)(free.as_ref(), owner)
    };
    let mutant = Protocol { acquire, ..SHIPPED };
    assert!(search(&mutant, 2).1.contains(TWICE));
}

#[test]
fn a_mutant_that_takes_a_lost_answer_for_a_refusal_is_caught() {
    let release =
        |chain: Option<&Chain>, ticket: &Ticket, _| (SHIPPED.release)(chain, ticket, true);
    let mutant = Protocol { release, ..SHIPPED };
    assert!(search(&mutant, 2).1.contains(TWICE));
}

#[test]
fn a_mutant_that_exchanges_before_it_writes_the_intent_is_caught() {
    let acquire = |chain: Option<&Chain>, owner| (None, (SHIPPED.acquire)(chain, owner).1);
    let mutant = Protocol { acquire, ..SHIPPED };
    assert!(search(&mutant, 2).1.contains(TWICE));
}

#[test]
fn a_mutant_that_wants_the_lease_to_save_an_exchanged_pair_is_caught() {
    let commit = |chain: Option<&Chain>, ticket: &Ticket, fresh: &Issued| {
        let lease = chain.and_then(|chain| chain.lease);
        if lease.is_some_and(|lease| lease.until > now()) {
            (SHIPPED.commit)(chain, ticket, fresh)
        } else {
            (None, Committed::Alternate)
        }
    };
    let mutant = Protocol { commit, ..SHIPPED };
    assert!(search(&mutant, 2).1.contains(LOST));
}
