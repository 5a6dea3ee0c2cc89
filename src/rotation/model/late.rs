//! Responses that are late, and the proof of pairs that may be dead.
//!
//! A late response arrives after its worker has stopped waiting for it, at any time. Meanwhile, the
//! worker repeats the call, and Slack may end the pair of the late response.

use super::{
    Budget, Doing, First, NO_CRASH, OVERWRITTEN, Protocol, REUSES, ROOT, Reuse, SHIPPED, State,
    Status, Successors, Token, at, clean, expires_at, issued_at, now, search,
};
use crate::rotation::protocol::{self, Acquired, Asked, Issued, Response, Ticket};
use crate::store::{Chain, Mark};

/// A task that waits for a late response, and saves its pair.
#[derive(Clone, Debug)]
pub(super) struct Late {
    /// The worker that made the call.
    pub(super) number: usize,
    pub(super) ticket: Ticket,
    pub(super) new: u8,
}

/// What Slack says about the pair of this generation (`auth.test`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Asks {
    asked: Asked,
    is_alive: bool,
}

impl Asks {
    pub(super) fn key(self) -> [u8; 4] {
        let small = |number: u128| u8::try_from(number).expect("the numbers are small");
        let Asked {
            install,
            generation,
            newest,
        } = self.asked;
        let newest = newest.map_or(ROOT, at);
        [
            small(install.0),
            small(generation.into()),
            newest,
            self.is_alive.into(),
        ]
    }
}

impl State {
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
            let issued = issued(late.new, state.by(late.new), Response::Late);
            let (next, committed) = (protocol.commit)(chain, &late.ticket, &issued);
            let Late { number, new, .. } = late;
            self.add(
                format_args!("{number} commits the late {new}: {committed:?}"),
                |state| {
                    state.write(protocol, next);
                    state.late.remove(place);
                },
            );
        }
    }

    /// Asks Slack whether the stored pair is alive.
    pub(super) fn ask(&mut self, number: usize) {
        let Some(chain) = &self.state.record else {
            return;
        };
        let is_usable =
            |mark: Mark| self.state.tokens[usize::from(at(mark))].status != Status::Dead;
        let asks = Asks {
            asked: Asked::of(chain),
            is_alive: chain.refresh.is_some_and(is_usable),
        };
        let is_alive = asks.is_alive;
        self.add(format_args!("{number} asks: alive {is_alive}"), |state| {
            state.workers[number].doing = Doing::Asks(asks);
        });
    }

    /// Stores what Slack has said. A pair that is dead counts as expired.
    pub(super) fn store(&mut self, number: usize, asks: Asks) {
        let Asks { asked, is_alive } = asks;
        let chain = self.state.record.as_ref();
        let next = if is_alive {
            (self.protocol.prove)(chain, asked)
        } else {
            protocol::end(chain, asked.install, asked.generation, true, now())
        };
        self.end(number, format_args!("stores Slack's answer"), next);
    }
}

/// Returns a pair that was bought with this token.
pub(super) fn issued(new: u8, by: u8, response: Response) -> Issued {
    Issued {
        refresh: Mark(new.into()),
        by: Some(Mark(by.into())),
        response,
        issued_at: issued_at(),
        expires_at: Some(expires_at()),
        is_ahead: false,
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
        let states = clean(&State::first(1, budget, First::Caller, 0), reuse);
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
            let states = clean(&State::first(2, budget, First::Caller, 0), reuse);
            assert!(states > 5_000, "{states} states: the search stopped early");
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
        let states = clean(&State::first(1, budget, First::Caller, 0), reuse);
        assert!(states > 1_000, "{states} states: the search stopped early");
    }
}

/// Returns whether the search finds that a mutant overwrites a refresh token that works.
fn finds(mutant: Protocol) -> bool {
    finds_with(1, mutant)
}

fn finds_with(workers: usize, mutant: Protocol) -> bool {
    let budget = Budget {
        uses: 3,
        lapses: 0,
        ..LATE
    };
    let first = State::first(workers, budget, First::Caller, 0);
    let (_, wrongs) = search(&first, &mutant, Reuse::NewestOnly, Some(OVERWRITTEN));
    wrongs.contains_key(OVERWRITTEN)
}

#[test]
fn a_mutant_that_drops_the_spent_token_before_its_pair_is_proven_is_caught() {
    let commit = |chain: Option<&Chain>, ticket: &Ticket, fresh: &Issued| {
        let (next, answer) = (SHIPPED.commit)(chain, ticket, fresh);
        let dropped = next.map(|mut next| {
            let spent = next.spent.take();
            next.alternates.retain(|mark| Some(*mark) != spent);
            next
        });
        (dropped, answer)
    };
    assert!(finds(Protocol { commit, ..SHIPPED }));
}

#[test]
fn a_mutant_that_takes_a_pair_for_proven_while_a_call_is_on_its_way_is_caught() {
    let acquire = |chain: Option<&Chain>, owner, asked| {
        let (next, acquired) = (SHIPPED.acquire)(chain, owner, asked);
        match acquired {
            Acquired::Held(_) if chain.is_some_and(|it| it.is_unproven) => (None, Acquired::Ask),
            acquired => (next, acquired),
        }
    };
    let prove = |chain: Option<&Chain>, asked| {
        let lease = chain.and_then(|chain| chain.lease);
        let free = chain.map(|chain| Chain {
            lease: None,
            ..chain.clone()
        });
        let next = (SHIPPED.prove)(free.as_ref(), asked);
        next.map(|next| Chain { lease, ..next })
    };
    let mutant = Protocol {
        acquire,
        prove,
        ..SHIPPED
    };
    assert!(finds_with(2, mutant));
}

#[test]
fn a_mutant_whose_late_save_gives_the_lease_of_the_running_call_back_is_caught() {
    let commit = |chain: Option<&Chain>, ticket: &Ticket, fresh: &Issued| {
        let prompt = Issued {
            response: Response::Second,
            ..*fresh
        };
        (SHIPPED.commit)(chain, ticket, &prompt)
    };
    assert!(finds_with(2, Protocol { commit, ..SHIPPED }));
}
