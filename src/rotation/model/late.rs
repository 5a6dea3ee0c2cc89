//! Responses that are late, and the proof of pairs that may be dead.
//!
//! A late response arrives after its worker has stopped waiting for it, at any time. Meanwhile, the
//! worker repeats the call, and Slack may end the pair of the late response.

use super::{
    Budget, Doing, First, NO_CRASH, OVERWRITTEN, Protocol, REUSES, ROOT, Reuse, SHIPPED, State,
    Status, Successors, Token, at, clean, issued_at, now, search,
};
use crate::rotation::protocol::{self, Committed, Issued, Ticket};
use crate::store::{Chain, InstallId, Mark, Unproven};

/// A task that waits for a late response, saves its pair, and asks Slack about it.
#[derive(Clone, Debug)]
pub(super) struct Late {
    /// The worker that made the call.
    pub(super) number: usize,
    pub(super) ticket: Ticket,
    pub(super) new: u8,
    pub(super) asks: Option<Asks>,
}

/// A question to Slack (`auth.test`) about the pair of this generation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asks {
    pub(super) install: InstallId,
    pub(super) generation: u64,
    /// Whether a refresh held the lease when Slack was asked.
    pub(super) is_held: bool,
    /// Slack's answer, which is not stored yet.
    pub(super) is_alive: Option<bool>,
}

impl Asks {
    /// Returns the question that follows a commit, if there is one.
    pub(super) fn after(committed: Committed, next: Option<&Chain>) -> Option<Self> {
        let next = next.filter(|next| match committed {
            Committed::Alternate => true,
            Committed::Orphan => false,
            Committed::Saved => next.unproven.is_some(),
        })?;
        Some(Self {
            install: next.install,
            generation: next.generation,
            is_held: next.lease.is_some(),
            is_alive: None,
        })
    }

    pub(super) fn key(self) -> [u8; 4] {
        let small = |number: u128| u8::try_from(number).expect("the numbers are small");
        let is_alive = self.is_alive.map_or(2, u8::from);
        [
            small(self.install.0),
            small(self.generation.into()),
            is_alive,
            self.is_held.into(),
        ]
    }

    /// Returns the chain with Slack's answer. A pair that is dead counts as expired.
    fn stored(self, protocol: &Protocol, chain: Option<&Chain>) -> Option<Chain> {
        if self.is_alive? {
            (protocol.confirm)(chain, self.generation, self.is_held)
        } else {
            protocol::end(chain, self.install, self.generation, true, now())
        }
    }
}

impl State {
    /// Returns whether Slack calls the stored pair alive.
    pub(super) fn is_stored_alive(&self) -> bool {
        let refresh = self.record.as_ref().and_then(|chain| chain.refresh);
        refresh.is_some_and(|mark| self.tokens[usize::from(at(mark))].status != Status::Dead)
    }

    /// Returns whether a refresh token buys a pair that is alive.
    pub(super) fn works(&self, token: u8, reuse: Reuse) -> bool {
        match (self.tokens[usize::from(token)].status, reuse) {
            (Status::Dead, _) | (Status::Grace, Reuse::FirstOnly) => false,
            (Status::Live, _) | (Status::Grace, Reuse::AllLive | Reuse::NewestOnly) => true,
            (Status::Grace, Reuse::SameChild) => {
                let mut tokens = self.tokens.iter();
                tokens.any(|it| it.parent == token && it.status != Status::Dead)
            }
        }
    }

    /// Returns whether a write has replaced a refresh token that works by tokens that do not. A
    /// token is replaced for good when a pair that it bought, or one that was bought beside it, has
    /// bought another one.
    pub(super) fn is_overwritten(&self, reuse: Reuse) -> bool {
        let is_ours = |number: &u8| {
            let token = &self.tokens[usize::from(*number)];
            let parents = [*number, token.parent];
            let is_next = |it: &Token| it.parent != ROOT && parents.contains(&it.parent);
            let is_itself = |it: &Token| std::ptr::eq(it, token);
            let mut spent = self.tokens.iter().filter(|it| it.was_spent);
            let is_replaced = spent.any(|it| is_next(it) && !is_itself(it));
            token.was_stored && token.install == self.install && !is_replaced
        };
        let count = u8::try_from(self.tokens.len()).expect("there are few tokens");
        (0..count).filter(is_ours).any(|it| self.works(it, reuse))
    }
}

impl Successors<'_> {
    /// Adds the possible next steps of the tasks that wait for late responses.
    pub(super) fn late(&mut self) {
        let (state, protocol) = (self.state, self.protocol);
        let chain = state.record.as_ref();
        for (place, late) in state.late.iter().enumerate() {
            let number = late.number;
            let Some(asks) = late.asks else {
                let issued = Issued {
                    is_late: true,
                    ..issued(late.new, &late.ticket, state.by(late.new))
                };
                let (next, committed) = (protocol.commit)(chain, &late.ticket, &issued);
                let asks = Asks::after(committed, next.as_ref());
                let tag = format!("{number} commits the late {}: {committed:?}", late.new);
                self.add(tag, |state| {
                    state.write(protocol, next);
                    match asks {
                        Some(_) => state.late[place].asks = asks,
                        None => drop(state.late.remove(place)),
                    }
                });
                continue;
            };
            self.ask(number, asks, |state, asks| match asks {
                Some(_) => state.late[place].asks = asks,
                None => drop(state.late.remove(place)),
            });
        }
    }

    /// Adds the possible outcomes of a question. `put` stores how it goes on.
    pub(super) fn ask(
        &mut self,
        number: usize,
        asks: Asks,
        put: impl Fn(&mut State, Option<Asks>),
    ) {
        let (state, protocol) = (self.state, self.protocol);
        if asks.is_alive.is_some() {
            let next = asks.stored(protocol, state.record.as_ref());
            self.add(format!("{number} stores the answer"), |state| {
                state.write(protocol, next);
                put(state, None);
            });
            return;
        }
        self.add(format!("{number} asks and gets no answer"), |state| {
            put(state, None);
        });
        let chain = state.record.as_ref();
        let is_its =
            |chain: &&Chain| chain.install == asks.install && chain.generation == asks.generation;
        // The answer about a pair that was replaced has no effect.
        if chain.filter(is_its).is_some() {
            let is_alive = state.is_stored_alive();
            self.add(format!("{number} asks: alive {is_alive}"), |state| {
                let is_alive = Some(is_alive);
                put(state, Some(Asks { is_alive, ..asks }));
            });
        }
    }

    /// Adds the steps of a worker that holds the lease of a pair that is not proven.
    pub(super) fn prove(&mut self, number: usize, ticket: &Ticket) {
        let (state, protocol) = (self.state, self.protocol);
        if matches!(state.workers[number].doing, Doing::Proven) {
            let next = protocol::prove(state.record.as_ref(), ticket);
            self.add(format!("{number} stores that the pair is alive"), |state| {
                state.write(protocol, next);
                state.rest(number);
            });
            return;
        }
        self.add(format!("{number} asks first and calls"), |state| {
            state.workers[number].doing = Doing::Calls(0);
        });
        if state.is_stored_alive() {
            self.add(format!("{number} asks first: alive"), |state| {
                state.workers[number].doing = Doing::Proven;
            });
        }
    }
}

/// Returns a pair that was bought for this ticket.
pub(super) fn issued(new: u8, ticket: &Ticket, parent: u8) -> Issued {
    let parent = Mark(parent.into());
    Issued {
        refresh: Mark(new.into()),
        by: ticket.candidates.contains(&parent).then_some(parent),
        issued_at: issued_at(),
        expires_at: Some(now()),
        is_ahead: false,
        is_late: false,
        is_uncounted: false,
    }
}

const LATE: Budget = Budget {
    uses: 4,
    late: 1,
    reinstalls: 0,
    uninstalls: 0,
    ..NO_CRASH
};

#[test]
fn no_late_pair_replaces_a_refresh_token_that_works() {
    for reuse in REUSES {
        let budget = Budget {
            uses: 3,
            lapses: 0,
            ..LATE
        };
        let states = clean(State::first(1, budget, First::Caller, 0), reuse);
        assert!(states > 100, "{states} states: the search stopped early");
    }
}

#[test]
#[ignore = "needs an optimised build; scripts/test runs it"]
fn no_interleaving_with_late_answers_loses_a_token() {
    let alone = Budget { lapses: 0, ..LATE };
    let overtaken = Budget {
        uses: 3,
        lapses: 1,
        ..LATE
    };
    for reuse in REUSES {
        for budget in [alone, overtaken] {
            let states = clean(State::first(2, budget, First::Caller, 0), reuse);
            assert!(states > 10_000, "{states} states: the search stopped early");
        }
    }
}

#[test]
#[ignore = "needs an optimised build; scripts/test runs it"]
fn two_late_answers_lose_no_token() {
    let budget = Budget {
        lapses: 0,
        late: 2,
        ..LATE
    };
    for reuse in [Reuse::FirstOnly, Reuse::NewestOnly] {
        let states = clean(State::first(1, budget, First::Caller, 0), reuse);
        assert!(states > 1_000, "{states} states: the search stopped early");
    }
}

/// Returns whether the search finds that a mutant overwrites a refresh token that works.
fn finds(mutant: Protocol) -> bool {
    let budget = Budget {
        uses: 3,
        lapses: 0,
        ..LATE
    };
    let first = State::first(1, budget, First::Caller, 0);
    let (_, wrongs) = search(first, &mutant, Reuse::NewestOnly, Some(OVERWRITTEN));
    wrongs.contains_key(OVERWRITTEN)
}

#[test]
fn a_mutant_that_drops_the_spent_token_before_its_pair_is_proven_is_caught() {
    let commit = |chain: Option<&Chain>, ticket: &Ticket, fresh: &Issued| {
        let (next, answer) = (SHIPPED.commit)(chain, ticket, fresh);
        let dropped = next.map(|mut next| {
            next.alternates.retain(|mark| Some(*mark) != fresh.by);
            let kept = Vec::new();
            next.unproven = next.unproven.map(|it| Unproven { kept, ..it });
            next
        });
        (dropped, answer)
    };
    assert!(finds(Protocol { commit, ..SHIPPED }));
}

#[test]
fn a_mutant_that_takes_a_pair_for_proven_while_a_call_is_on_its_way_is_caught() {
    let confirm = |chain: Option<&Chain>, generation, _| {
        let lease = chain.and_then(|chain| chain.lease);
        let free = chain.map(|chain| Chain {
            lease: None,
            ..chain.clone()
        });
        let next = (SHIPPED.confirm)(free.as_ref(), generation, false);
        next.map(|next| Chain { lease, ..next })
    };
    assert!(finds(Protocol { confirm, ..SHIPPED }));
}

#[test]
fn a_mutant_whose_late_save_gives_the_lease_of_the_running_call_back_is_caught() {
    let commit = |chain: Option<&Chain>, ticket: &Ticket, fresh: &Issued| {
        let prompt = Issued {
            is_late: false,
            ..*fresh
        };
        (SHIPPED.commit)(chain, ticket, &prompt)
    };
    assert!(finds(Protocol { commit, ..SHIPPED }));
}
