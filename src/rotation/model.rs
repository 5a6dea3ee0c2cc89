//! Checks the protocol exhaustively against an adversary. The model runs the functions of
//! [`protocol`](super::protocol) in every interleaving of several workers. The adversary controls:
//!
//! * when a lease lapses, and when Slack's grace ends,
//! * lost and late responses, and crashes,
//! * a reinstall and an uninstallation,
//! * how Slack treats a refresh token that is used again, in one of four ways.
//!
//! The search is breadth-first, so it reports the shortest story of each violation. Mutants of the
//! protocol show that the search finds the violations that it looks for.
//!
//! The large searches need an optimised build, so their tests are ignored by default:
//! `cargo test --profile simulation --features testing --lib rotation::model -- --include-ignored`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::protocol::{
    self, Acquired, Asked, Committed, Demand, Issued, Refused, Released, Response, Served, Ticket,
};
use crate::store::{Chain, InstallId, Mark};
use late::{Asks, Late, issued};

mod exchange;
mod late;
mod mutants;
mod parked;

/// How Slack treats a refresh token that is used again within the grace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reuse {
    AllLive,
    FirstOnly,
    NewestOnly,
    SameChild,
}

const REUSES: [Reuse; 4] = [
    Reuse::AllLive,
    Reuse::FirstOnly,
    Reuse::NewestOnly,
    Reuse::SameChild,
];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Status {
    Live,
    Grace,
    Dead,
}

/// A refresh token at Slack. Its index in the list is its [`Mark`].
#[derive(Clone, Copy, Debug)]
struct Token {
    status: Status,
    parent: u8,
    install: u8,
    /// Whether it was in the record.
    was_stored: bool,
    /// Whether it has bought a pair.
    was_spent: bool,
}

/// The parent of a token that has no parent.
const ROOT: u8 = u8::MAX;

/// How many times each event may still happen.
#[derive(Clone, Copy, Debug)]
struct Budget {
    uses: u8,
    crashes: u8,
    lost: u8,
    /// Responses that arrive after the worker has stopped waiting.
    late: u8,
    reinstalls: u8,
    uninstalls: u8,
    lapses: u8,
    /// Records that a caller has used the chain.
    touches: u8,
}

/// What the first worker acts for. The other workers act for callers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum First {
    Caller,
    /// The worker acts in the background: it refreshes the chains that [`protocol::serve`] selects,
    /// and buys pairs ahead.
    Worker {
        keeps_alive: bool,
    },
}

#[derive(Clone, Debug)]
enum Doing {
    Nothing,
    /// The worker holds a ticket and tries this candidate next.
    Calls(u8),
    /// The response to this candidate was lost.
    Lost(u8),
    /// Slack issued this token.
    Got(u8),
    /// Slack has said whether a pair is alive.
    Asks(Asks),
    /// Slack refused this candidate.
    Refused(u8),
}

#[derive(Clone, Debug)]
struct Worker {
    doing: Doing,
    ticket: Option<Ticket>,
    /// Whether the worker lost its lease, because the lease lapsed or the record was replaced.
    has_lapsed: bool,
    /// Whether it has made a call whose outcome is unknown.
    has_repeated: bool,
}

impl Worker {
    const FREE: Self = Self {
        doing: Doing::Nothing,
        ticket: None,
        has_lapsed: false,
        has_repeated: false,
    };
}

#[derive(Clone, Debug)]
struct State {
    tokens: Vec<Token>,
    record: Option<Chain>,
    install: u8,
    workers: Vec<Worker>,
    /// The tasks that wait for late responses.
    late: Vec<Late>,
    /// Whether a worker has called Slack after it lost its lease.
    is_stale: bool,
    budget: Budget,
    first: First,
    /// The installation and the generation of the last call whose outcome is lost.
    unheard: Option<(u8, u8)>,
    /// Whether the workers' schedule was wrong for a record that was written.
    forgotten: bool,
}

/// The functions under test, and mutants of them.
#[allow(clippy::type_complexity)] // The signatures are the protocol's own.
#[derive(Clone, Copy)]
struct Protocol {
    serve: Serve,
    acquire: fn(Option<&Chain>, u128, Option<Pair>) -> (Option<Chain>, Acquired),
    commit: fn(Option<&Chain>, &Ticket, &Issued) -> (Option<Chain>, Committed),
    refuse: fn(Option<&Chain>, &Ticket, &[Mark]) -> (Option<Chain>, Refused),
    repeat: fn(Option<&Chain>, &Ticket, bool) -> Option<Chain>,
    release: fn(Option<&Chain>, &Ticket, u32, bool) -> Option<Chain>,
    prove: fn(Option<&Chain>, Asked) -> Option<Chain>,
}

/// A pair, by its installation and generation.
type Pair = (InstallId, u64);

type Serve = fn(Option<&Chain>, SystemTime, Option<Duration>) -> (Option<Chain>, Served);

const SHIPPED: Protocol = Protocol {
    serve: protocol::serve,
    acquire: |chain, owner, asked| {
        protocol::acquire(chain, Demand::Current, owner, None, asked, now())
    },
    commit: |chain, ticket, fresh| protocol::commit(chain, ticket, fresh, now()),
    refuse: |chain, ticket, refused| {
        protocol::refuse(chain, ticket, refused, &"refused".into(), now())
    },
    repeat: |chain, ticket, may_come| protocol::repeat(chain, ticket, may_come, now()),
    release: |chain, ticket, fruitless, may_come| {
        let error: Arc<str> = "lost".into();
        let released = Released {
            fruitless,
            may_come,
            retry_at: now(),
            error,
        };
        protocol::release(chain, ticket, &released)
    },
    prove: protocol::prove,
};

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000)
}

/// When all pairs were issued: they are due, and still usable.
fn issued_at() -> SystemTime {
    now() - Duration::from_secs(700)
}

fn expires_at() -> SystemTime {
    now() + Duration::from_secs(300)
}

/// Returns a record whose token is always due.
fn record(install: u8, refresh: u8) -> Chain {
    let (install, refresh) = (InstallId(install.into()), Mark(refresh.into()));
    Chain::unused(install, Some(refresh), issued_at(), Some(expires_at()))
}

/// Returns the age of a time that a record has: none, young or old.
fn age(time: Option<SystemTime>) -> u8 {
    time.map_or(0, |time| if time < now() { 1 } else { 2 })
}

/// Returns the record without the fields that do not matter to the search. Among them are times,
/// because the adversary controls the time.
fn plain(chain: Chain) -> Chain {
    Chain {
        retry_at: None,
        failures: 0,
        last_error: None,
        idle: chain.idle.min(PARKED),
        due_at: None,
        ..chain
    }
}

/// Returns whether the workers' schedule of a chain is wrong, at times when all leases and pauses
/// have ended. It is wrong if no worker would refresh a chain that must be refreshed, or if
/// workers would check a chain without effect.
fn is_forgotten(serve: Serve, chain: &Chain) -> bool {
    let chain = protocol::scheduled(chain.clone());
    // States independently of the protocol which chains the worker does not refresh.
    let is_settled = chain.attempts == 0 && !chain.is_unproven;
    let is_parked = chain.idle >= PARKED && is_settled && chain.lease.is_none();
    let looks = [
        (DAY, None),
        (DAY, Some(20 * DAY)),
        (21 * DAY, None),
        (21 * DAY, Some(20 * DAY)),
    ];
    looks.into_iter().any(|(after, keep_alive)| {
        let later = now() + after;
        let (next, served) = serve(Some(&chain), later, keep_alive);
        let (_, acquired) = protocol::acquire(Some(&chain), Demand::Current, 99, None, None, later);
        let can_refresh = matches!(acquired, Acquired::Ask | Acquired::Go(_));
        let is_late = after > 20 * DAY;
        let is_wanted = can_refresh && (!is_parked || is_late && keep_alive.is_some());
        let is_due = chain.due_at.is_some_and(|due_at| due_at <= later);
        // Another process may keep the chain alive, so it must be due again within two days, but
        // not at once.
        let again = next.and_then(|next| next.due_at);
        let is_left = again.is_some_and(|at| at > later && at <= later + 2 * DAY);
        is_due != (can_refresh && (!is_parked || is_late))
            || is_wanted != (served == Served::Refresh)
            || is_due && !is_wanted && !is_left
    })
}

/// After this many pairs that no caller has used, no pair is bought ahead.
const PARKED: u32 = 2;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn at(mark: Mark) -> u8 {
    u8::try_from(mark.0).expect("marks are indexes of a short list")
}

impl State {
    fn first(workers: usize, budget: Budget, first: First, idle: u32) -> Self {
        let record = Chain {
            idle,
            ..record(0, 0)
        };
        Self {
            tokens: vec![Token {
                status: Status::Live,
                parent: ROOT,
                install: 0,
                was_stored: true,
                was_spent: false,
            }],
            record: Some(record),
            install: 0,
            workers: vec![Worker::FREE; workers],
            late: Vec::new(),
            is_stale: false,
            budget,
            first,
            unheard: None,
            forgotten: false,
        }
    }

    /// Writes the key by which the search compares states.
    fn key(&self, key: &mut Vec<u8>) {
        key.clear();
        let Budget {
            uses,
            crashes,
            lost,
            late,
            reinstalls,
            uninstalls,
            lapses,
            touches,
        } = self.budget;
        key.extend([
            uses,
            crashes,
            lost,
            late,
            reinstalls,
            uninstalls,
            lapses,
            touches,
            self.install,
        ]);
        let (install, generation) = self.unheard.unwrap_or((ROOT, ROOT));
        key.extend([install, generation, self.is_stale.into()]);
        for token in &self.tokens {
            key.extend([token.status as u8, token.parent, token.install]);
            key.push(u8::from(token.was_stored) + 2 * u8::from(token.was_spent));
        }
        key.push(0xFF);
        if let Some(chain) = &self.record {
            let number = |number: u128| u8::try_from(number).expect("the numbers are small");
            key.extend([number(chain.install.0), number(chain.generation.into())]);
            key.extend([number(chain.attempts.into()), number(chain.idle.into())]);
            key.push(chain.refresh.map_or(ROOT, at));
            key.extend(chain.alternates.iter().copied().map(at));
            // Compares the worker that holds the lease, not the owner's number. `ROOT` means that
            // no living worker holds it.
            let lease = chain.lease.map_or([0, 0], |lease| {
                let owner = self.worker_of(lease.owner);
                let owner = owner.map_or(ROOT, |owner| number(owner as u128 + 1));
                [owner, u8::from(lease.until > now())]
            });
            key.push(0xFE);
            key.extend(lease);
            key.push(chain.is_dead.into());
            let is_over = chain.expires_at <= Some(chain.issued_at);
            key.push(is_over.into());
            key.extend([chain.attempted_at, chain.unheard_at].map(age));
            key.extend([chain.is_unproven.into(), chain.spent.map_or(ROOT, at)]);
        }
        for late in &self.late {
            let number = u8::try_from(late.number).expect("there are few workers");
            key.extend([0xFB, number, late.new]);
            self.ticket_key(&late.ticket, key);
        }
        for worker in &self.workers {
            key.push(0xFD);
            let (kind, what) = match worker.doing {
                Doing::Nothing => (0, 0),
                Doing::Calls(what) => (1, what),
                Doing::Got(what) => (2, what),
                Doing::Refused(what) => (3, what),
                Doing::Lost(what) => (4, what),
                Doing::Asks(_) => (5, 0),
            };
            key.extend([kind, what, worker.has_lapsed.into()]);
            key.push(worker.has_repeated.into());
            if let Doing::Asks(asks) = worker.doing {
                key.extend(asks.key());
            }
            if let Some(ticket) = &worker.ticket {
                self.ticket_key(ticket, key);
            }
        }
    }

    fn ticket_key(&self, ticket: &Ticket, key: &mut Vec<u8>) {
        let number = |number: u128| u8::try_from(number).expect("the numbers are small");
        key.extend([number(ticket.install.0), number(ticket.generation.into())]);
        let owner = self.worker_of(ticket.owner);
        key.push(owner.map_or(ROOT, |it| number(it as u128)));
        key.extend(ticket.candidates.iter().copied().map(at));
    }

    /// Returns the token that bought this one.
    fn by(&self, token: u8) -> u8 {
        self.tokens[usize::from(token)].parent
    }

    fn is_quiescent(&self) -> bool {
        self.workers
            .iter()
            .all(|worker| matches!(worker.doing, Doing::Nothing))
            && self.late.is_empty()
    }

    /// Sends a refresh token to Slack. Returns the token that it buys, or `None` if Slack refuses.
    fn spend(&mut self, token: u8, reuse: Reuse) -> Option<u8> {
        let Token {
            status, install, ..
        } = self.tokens[usize::from(token)];
        let new = u8::try_from(self.tokens.len()).expect("there are few tokens");
        let children: Vec<_> = (0..new)
            .filter(|child| self.tokens[usize::from(*child)].parent == token)
            .collect();
        let mut born = Status::Live;
        match status {
            Status::Dead => return None,
            Status::Live => self.tokens[usize::from(token)].status = Status::Grace,
            Status::Grace => match reuse {
                Reuse::AllLive => {}
                Reuse::FirstOnly => born = Status::Dead,
                Reuse::NewestOnly => children.into_iter().for_each(|child| self.end(child)),
                Reuse::SameChild => {
                    if let Some(child) = children.first() {
                        return Some(*child);
                    }
                }
            },
        }
        self.tokens[usize::from(token)].was_spent = true;
        self.tokens.push(Token {
            status: born,
            parent: token,
            install,
            was_stored: false,
            was_spent: false,
        });
        Some(new)
    }

    fn end(&mut self, token: u8) {
        self.tokens[usize::from(token)].status = Status::Dead;
        for child in 0..self.tokens.len() {
            if self.tokens[child].parent == token {
                self.end(u8::try_from(child).expect("there are few tokens"));
            }
        }
    }

    fn write(&mut self, protocol: &Protocol, next: Option<Chain>) {
        if let Some(next) = next {
            self.forgotten |= is_forgotten(protocol.serve, &next);
            for mark in next.refresh.iter().chain(&next.alternates) {
                self.tokens[usize::from(at(*mark))].was_stored = true;
            }
            self.record = Some(plain(next));
        }
    }

    /// Records that the outcome of this worker's call is lost.
    fn lose(&mut self, number: usize) {
        let ticket = self.workers[number].ticket.as_ref();
        let ticket = ticket.expect("a worker that has called has a ticket");
        let small = |number: u128| u8::try_from(number).expect("the numbers are small");
        self.unheard = Some((small(ticket.install.0), small(ticket.generation.into())));
    }

    /// Returns the worker whose ticket has this owner.
    fn worker_of(&self, owner: u128) -> Option<usize> {
        let is_its = |worker: &Worker| {
            let ticket = worker.ticket.as_ref();
            ticket.is_some_and(|ticket| ticket.owner == owner)
        };
        self.workers.iter().position(is_its)
    }

    /// Returns an unused owner: each attempt has its own.
    fn new_owner(&self) -> u128 {
        let lease = self.record.as_ref().and_then(|chain| chain.lease);
        let is_taken = |owner: u128| {
            lease.is_some_and(|lease| lease.owner == owner) || self.worker_of(owner).is_some()
        };
        let mut owners = 1..;
        owners
            .find(|owner| !is_taken(*owner))
            .expect("few owners are used")
    }

    /// Returns whether this worker may refresh. A worker that acts for a caller always may; a
    /// background worker may if `serve` says so.
    fn comes(&self, number: usize, protocol: &Protocol) -> bool {
        let First::Worker { keeps_alive } = self.first else {
            return true;
        };
        let keep_alive = keeps_alive.then_some(20 * DAY);
        let later = now() + 21 * DAY;
        let (_, served) = (protocol.serve)(self.record.as_ref(), later, keep_alive);
        number > 0 || served == Served::Refresh
    }

    /// Marks the worker that holds the lease: it loses the lease by an event from outside.
    fn lapse(&mut self) {
        let owner = self
            .record
            .as_ref()
            .and_then(|chain| chain.lease)
            .map(|lease| lease.owner);
        let holder = owner.and_then(|owner| self.worker_of(owner));
        if let Some(holder) = holder {
            self.workers[holder].has_lapsed = true;
        }
    }

    fn end_lease(&mut self) {
        self.lapse();
        self.budget.lapses -= 1;
        if let Some(lease) = self.record.as_mut().and_then(|chain| chain.lease.as_mut()) {
            lease.until = now();
        }
    }

    fn reinstall(&mut self, keeps: bool) {
        self.lapse();
        self.budget.reinstalls -= 1;
        self.install += 1;
        if !keeps {
            self.end_all();
        }
        let new = u8::try_from(self.tokens.len()).expect("there are few tokens");
        self.tokens.push(Token {
            status: Status::Live,
            parent: ROOT,
            install: self.install,
            was_stored: true,
            was_spent: false,
        });
        self.record = Some(record(self.install, new));
    }

    /// Returns whether a response to a call of this worker's may still come.
    fn may_come(&self, number: usize) -> bool {
        self.late.iter().any(|late| late.number == number)
    }

    /// Returns whether so much time may pass that no process holds a pair of a recorded call.
    fn may_wait(&self) -> bool {
        let chain = self.record.as_ref();
        let is_young = |time| age(time) == 2;
        let is_recent = |it: &Chain| is_young(it.attempted_at) || is_young(it.unheard_at);
        let is_idle = |it: &Worker| it.ticket.is_none();
        chain.is_some_and(is_recent) && self.late.is_empty() && self.workers.iter().all(is_idle)
    }

    fn wait(&mut self) {
        if let Some(chain) = &mut self.record {
            for time in [&mut chain.attempted_at, &mut chain.unheard_at] {
                *time = time.map(|_| now() - protocol::HOLDS);
            }
        }
    }

    /// Returns whether a process holds a pair of the stored installation that is not saved.
    fn holds_pair(&self) -> bool {
        let got = self.workers.iter().filter_map(|worker| match worker.doing {
            Doing::Got(new) => Some(new),
            _ => None,
        });
        let mut held = got.chain(self.late.iter().map(|late| late.new));
        held.any(|new| self.tokens[usize::from(new)].install == self.install)
    }

    fn uninstall(&mut self) {
        self.lapse();
        self.budget.uninstalls -= 1;
        self.install += 1;
        self.end_all();
        self.record = None;
    }

    fn end_all(&mut self) {
        for token in &mut self.tokens {
            token.status = Status::Dead;
        }
    }

    fn rest(&mut self, number: usize) {
        self.workers[number] = Worker::FREE;
    }
}

/// Collects the possible next states.
struct Successors<'s> {
    state: &'s State,
    protocol: &'s Protocol,
    reuse: Reuse,
    found: Vec<State>,
    /// The steps that lead to these states, if they are wanted.
    steps: Option<Vec<String>>,
}

impl<'s> Successors<'s> {
    fn of(state: &'s State, protocol: &'s Protocol, reuse: Reuse, is_told: bool) -> Self {
        let mut successors = Self {
            state,
            protocol,
            reuse,
            found: Vec::new(),
            steps: is_told.then(Vec::new),
        };
        successors.adversary();
        for number in 0..state.workers.len() {
            successors.crash(number);
            successors.work(number);
        }
        successors.late();
        successors
    }

    fn add(&mut self, step: fmt::Arguments<'_>, change: impl FnOnce(&mut State)) {
        let mut state = self.state.clone();
        change(&mut state);
        self.found.push(state);
        if let Some(steps) = &mut self.steps {
            steps.push(step.to_string());
        }
    }

    /// Adds the events from outside.
    fn adversary(&mut self) {
        let (state, protocol) = (self.state, self.protocol);
        for (number, token) in state.tokens.iter().enumerate() {
            if token.status == Status::Grace {
                self.add(format_args!("grace of {number} ends"), |state| {
                    state.tokens[number].status = Status::Dead;
                });
            }
        }
        let lease = state.record.as_ref().and_then(|chain| chain.lease);
        if state.budget.lapses > 0 && lease.is_some_and(|lease| lease.until > now()) {
            self.add(format_args!("lease lapses"), State::end_lease);
        }
        if state.budget.reinstalls > 0 {
            for keeps in [true, false] {
                self.add(
                    format_args!("reinstall, old chain kept: {keeps}"),
                    |state| {
                        state.reinstall(keeps);
                    },
                );
            }
        }
        if state.may_wait() {
            self.add(format_args!("minutes pass"), State::wait);
        }
        if state.budget.uninstalls > 0 && state.record.is_some() {
            self.add(format_args!("uninstall"), State::uninstall);
        }
        if state.budget.touches > 0
            && let Some(next) = protocol::touch(state.record.as_ref())
        {
            self.add(format_args!("a caller uses the chain"), |state| {
                state.budget.touches -= 1;
                state.write(protocol, Some(next));
            });
        }
    }

    fn crash(&mut self, number: usize) {
        let is_busy = !matches!(self.state.workers[number].doing, Doing::Nothing);
        if is_busy && self.state.budget.crashes > 0 {
            self.add(format_args!("{number} crashes"), |state| {
                state.budget.crashes -= 1;
                if matches!(state.workers[number].doing, Doing::Got(_)) {
                    state.lose(number);
                }
                state.late.retain(|late| late.number != number);
                state.rest(number);
            });
        }
    }

    /// Adds the possible next steps of one worker. They follow the engine.
    fn work(&mut self, number: usize) {
        let (state, protocol) = (self.state, self.protocol);
        let chain = state.record.as_ref();
        if let Doing::Asks(asks) = state.workers[number].doing {
            self.store(number, asks);
            return;
        }
        let Some(ticket) = &state.workers[number].ticket else {
            self.acquire(number);
            return;
        };
        match state.workers[number].doing {
            Doing::Nothing | Doing::Asks(_) => {}
            Doing::Calls(candidate) => self.call(number, ticket, candidate),
            Doing::Lost(candidate) => {
                self.give_up(number, ticket, 0);
                let next = (protocol.repeat)(chain, ticket, state.may_come(number));
                let is_noted = next.is_some();
                let next = next.or_else(|| protocol::step_back(chain, ticket));
                self.add(
                    format_args!("{number} records one more call: {is_noted}"),
                    |state| {
                        state.write(protocol, next);
                        if is_noted {
                            state.workers[number].has_repeated = true;
                            state.workers[number].doing = Doing::Calls(candidate);
                        } else {
                            state.rest(number);
                        }
                    },
                );
            }
            Doing::Got(new) => {
                let response = if state.workers[number].has_repeated {
                    Response::Second
                } else {
                    Response::Only
                };
                let issued = Issued {
                    is_ahead: number == 0 && state.first != First::Caller,
                    ..issued(new, state.by(new), response)
                };
                let (next, answer) = (protocol.commit)(chain, ticket, &issued);
                self.end(number, format_args!("commits {new}: {answer:?}"), next);
            }
            Doing::Refused(candidate) if usize::from(candidate) + 1 < ticket.candidates.len() => {
                self.add(format_args!("{number} tries the next"), |state| {
                    state.workers[number].doing = Doing::Calls(candidate + 1);
                });
            }
            Doing::Refused(_) => {
                let (next, answer) = (protocol.refuse)(chain, ticket, &ticket.candidates);
                self.end(
                    number,
                    format_args!("is refused every token: {answer:?}"),
                    next,
                );
            }
        }
    }

    fn acquire(&mut self, number: usize) {
        let (state, protocol) = (self.state, self.protocol);
        if state.budget.uses == 0 || !state.comes(number, protocol) {
            return;
        }
        let chain = state.record.as_ref();
        let pair = chain.map(|chain| (chain.install, chain.generation));
        let (next, acquired) = (protocol.acquire)(chain, state.new_owner(), None);
        let (next, acquired) = match acquired {
            Acquired::Ask => {
                self.ask(number);
                // Slack does not say whether the pair is alive.
                (protocol.acquire)(chain, state.new_owner(), pair)
            }
            acquired => (next, acquired),
        };
        if let Acquired::Go(ticket) = acquired {
            self.add(format_args!("{number} acquires"), |state| {
                state.write(protocol, next);
                state.workers[number] = Worker {
                    doing: Doing::Calls(0),
                    ticket: Some(ticket),
                    ..Worker::FREE
                };
            });
        }
    }

    fn call(&mut self, number: usize, ticket: &Ticket, candidate: u8) {
        let reuse = self.reuse;
        // The engine checks its clock before it calls.
        if self.state.workers[number].has_lapsed || self.state.budget.uses == 0 {
            // The recorded call was not made.
            self.give_up(number, ticket, 1);
        }
        if self.state.budget.uses == 0 {
            return;
        }
        let token = at(ticket.candidates[usize::from(candidate)]);
        let has_lapsed = self.state.workers[number].has_lapsed;
        self.add(format_args!("{number} spends {token}"), |state| {
            state.budget.uses -= 1;
            state.is_stale |= has_lapsed;
            state.workers[number].doing = match state.spend(token, reuse) {
                Some(new) => Doing::Got(new),
                None => Doing::Refused(candidate),
            };
        });
        if self.state.budget.lost > 0 {
            self.add(
                format_args!("{number} spends {token}, response lost"),
                |state| {
                    state.budget.uses -= 1;
                    state.budget.lost -= 1;
                    state.is_stale |= has_lapsed;
                    state.spend(token, reuse);
                    state.lose(number);
                    state.workers[number].doing = Doing::Lost(candidate);
                },
            );
        }
        let status = self.state.tokens[usize::from(token)].status;
        if self.state.budget.late > 0 && status != Status::Dead {
            let ticket = ticket.clone();
            self.add(
                format_args!("{number} spends {token}, response late"),
                |state| {
                    state.budget.uses -= 1;
                    state.budget.late -= 1;
                    state.is_stale |= has_lapsed;
                    let new = state.spend(token, reuse).expect("Slack accepts it");
                    state.lose(number);
                    state.workers[number].doing = Doing::Lost(candidate);
                    state.late.push(Late {
                        number,
                        ticket,
                        new,
                    });
                },
            );
        }
    }

    fn give_up(&mut self, number: usize, ticket: &Ticket, fruitless: u32) {
        let chain = self.state.record.as_ref();
        let next = if ticket.is_overtaken(chain) {
            protocol::step_back(chain, ticket)
        } else {
            (self.protocol.release)(chain, ticket, fruitless, self.state.may_come(number))
        };
        self.end(number, format_args!("gives up"), next);
    }

    /// Adds the worker's last write of this attempt.
    fn end(&mut self, number: usize, what: fmt::Arguments<'_>, next: Option<Chain>) {
        let protocol = self.protocol;
        self.add(format_args!("{number} {what}"), |state| {
            state.write(protocol, next);
            state.rest(number);
        });
    }
}

/// Returns the rule that a state, or the step to it, violates.
fn wrong(
    protocol: &Protocol,
    reuse: Reuse,
    (before, state): (&State, &State),
    budget: Budget,
) -> Option<&'static str> {
    let is_reinstall = state.budget.reinstalls < before.budget.reinstalls;
    if let (Some(chain), Some((install, generation))) = (&state.record, state.unheard) {
        let unheard = (InstallId(install.into()), u64::from(generation));
        let is_its = (chain.install, chain.generation) == unheard;
        let (_, served) = (protocol.serve)(Some(chain), now() + DAY, None);
        if is_its && !chain.is_dead && served == Served::Nothing {
            return Some(UNHEARD);
        }
    }
    if state.forgotten {
        return Some(FORGOTTEN);
    }
    if before.record.is_none() && state.record.is_some() && !is_reinstall {
        return Some(RESURRECTED);
    }
    if let (Some(old), Some(new)) = (&before.record, &state.record) {
        if new.install != old.install && !is_reinstall {
            return Some(RESURRECTED);
        }
        if new.install == old.install && new.generation < old.generation {
            return Some(WENT_BACK);
        }
    }
    let is_dead = |state: &State| state.record.as_ref().is_some_and(|chain| chain.is_dead);
    if is_dead(state) && !is_dead(before) && before.holds_pair() {
        return Some(EARLY_DEATH);
    }
    if state.budget.uses < before.budget.uses {
        let caller = before
            .workers
            .iter()
            .zip(&state.workers)
            .position(|(before, after)| {
                matches!(before.doing, Doing::Calls(_)) && !matches!(after.doing, Doing::Calls(_))
            });
        let lease = before.record.as_ref().and_then(|chain| chain.lease);
        if let Some(caller) = caller
            && !before.workers[caller].has_lapsed
            && lease.is_none_or(|lease| before.worker_of(lease.owner) != Some(caller))
        {
            return Some(WITHOUT_LEASE);
        }
    }
    let chain = state.record.as_ref().filter(|_| state.is_quiescent())?;
    let stored = chain.refresh.iter().chain(&chain.alternates);
    let is_usable = |mark: &Mark| state.tokens[usize::from(at(*mark))].status != Status::Dead;
    let has_usable = stored.clone().any(is_usable);
    if chain.is_dead && has_usable {
        return Some(FALSE_DEATH);
    }
    let nothing_failed = state.budget.crashes == budget.crashes && state.budget.lost == budget.lost;
    let is_ours = |token: &Token| token.status == Status::Live && token.install == state.install;
    if !has_usable && nothing_failed && state.tokens.iter().any(is_ours) {
        return Some(LOST);
    }
    // A pair that has ended anyway is not handed out.
    let is_settled = !chain.is_unsettled() && !chain.is_dead;
    let is_handed_out = is_settled && chain.expires_at > Some(chain.issued_at);
    if is_handed_out && nothing_failed && !chain.refresh.iter().any(is_usable) {
        return Some(PROVEN_DEAD);
    }
    let nobody_died = state.budget.crashes == budget.crashes && !state.is_stale;
    if !has_usable && nobody_died && state.is_overwritten(reuse) {
        return Some(OVERWRITTEN);
    }
    None
}

const EARLY_DEATH: &str = "a chain is marked dead while a process holds a pair of it";
const FALSE_DEATH: &str = "a chain is marked dead, but one of its refresh tokens works";
const FORGOTTEN: &str = "the workers' schedule forgets a chain, or checks one without effect";
const LOST: &str = "nothing failed, but no stored refresh token works and Slack has one that does";
const OVERWRITTEN: &str = "no stored refresh token works, but one that was stored before does";
const PROVEN_DEAD: &str = "a pair that Slack has ended counts as alive";
const RESURRECTED: &str = "a step other than a reinstall restored or replaced an installation";
const UNHEARD: &str = "no worker would repeat a call whose outcome is lost";
const WENT_BACK: &str = "the generation of an installation decreased";
const WITHOUT_LEASE: &str = "a worker whose lease had not lapsed called Slack without it";

/// Searches all states, or until the `wanted` violation is found. Returns the number of states, and
/// the shortest story of each violation.
fn search(
    first: &State,
    protocol: &Protocol,
    reuse: Reuse,
    wanted: Option<&str>,
) -> (usize, HashMap<&'static str, String>) {
    let budget = first.budget;
    let mut key = Vec::new();
    first.key(&mut key);
    let mut seen = HashSet::from([Box::from(&key[..])]);
    // The states that are not searched yet, and the path to every state: the state before it, and
    // which of its successors it is.
    let mut queue = VecDeque::from([first.clone()]);
    let mut paths = vec![(0, 0)];
    let mut wrongs = HashMap::new();
    let mut place = 0;
    while wanted.is_none_or(|wanted| !wrongs.contains_key(wanted))
        && let Some(state) = queue.pop_front()
    {
        let successors = Successors::of(&state, protocol, reuse, false);
        for (nth, next) in successors.found.into_iter().enumerate() {
            if let Some(wrong) = wrong(protocol, reuse, (&state, &next), budget) {
                wrongs
                    .entry(wrong)
                    .or_insert_with(|| story(first, protocol, reuse, path(&paths, place, nth)));
            }
            next.key(&mut key);
            if !seen.contains(&key[..]) {
                seen.insert(Box::from(&key[..]));
                queue.push_back(next);
                paths.push((place, nth));
            }
        }
        place += 1;
    }
    (paths.len(), wrongs)
}

/// Returns which successor to take in each state on the way to the `last` of this place.
fn path(paths: &[(usize, usize)], mut place: usize, last: usize) -> Vec<usize> {
    let mut path = vec![last];
    while place != 0 {
        let (before, nth) = paths[place];
        path.push(nth);
        place = before;
    }
    path.reverse();
    path
}

/// Takes a path, and tells its steps.
fn story(first: &State, protocol: &Protocol, reuse: Reuse, path: Vec<usize>) -> String {
    let mut state = first.clone();
    let mut story = String::new();
    for nth in path {
        let mut successors = Successors::of(&state, protocol, reuse, true);
        let step = &successors.steps.expect("they are wanted")[nth];
        write!(story, "\n    {step}").expect("writing to a string cannot fail");
        let next = successors.found.swap_remove(nth);
        state = next;
    }
    story
}

const NO_CRASH: Budget = Budget {
    uses: 4,
    crashes: 0,
    lost: 1,
    late: 0,
    reinstalls: 1,
    uninstalls: 1,
    lapses: 2,
    touches: 0,
};

fn check(reuse: Reuse, workers: usize, budget: Budget) {
    let states = clean(&State::first(workers, budget, First::Caller, 0), reuse);
    assert!(states > 10_000, "{states} states: the search stopped early");
}

/// Searches all states of the shipped protocol, and asserts that none violates a rule. Returns the
/// number of states.
fn clean(first: &State, reuse: Reuse) -> usize {
    let workers = first.workers.len();
    let (states, wrongs) = search(first, &SHIPPED, reuse, None);
    println!("{reuse:?}, {workers} workers: {states} states");
    for (wrong, story) in &wrongs {
        println!("{wrong}:{story}");
    }
    assert!(wrongs.is_empty(), "{reuse:?}: {:?}", wrongs.keys());
    states
}

#[test]
#[ignore = "needs an optimised build; scripts/test runs it"]
fn no_interleaving_loses_a_token_where_all_pairs_live() {
    check(Reuse::AllLive, 2, NO_CRASH);
}

#[test]
#[ignore = "needs an optimised build; scripts/test runs it"]
fn no_interleaving_loses_a_token_where_only_the_first_pair_lives() {
    check(Reuse::FirstOnly, 2, NO_CRASH);
}

#[test]
#[ignore = "needs an optimised build; scripts/test runs it"]
fn no_interleaving_loses_a_token_where_only_the_newest_pair_lives() {
    check(Reuse::NewestOnly, 2, NO_CRASH);
}

#[test]
#[ignore = "needs an optimised build; scripts/test runs it"]
fn no_interleaving_loses_a_token_where_reuse_brings_the_same_pair() {
    check(Reuse::SameChild, 2, NO_CRASH);
}

#[test]
#[ignore = "needs an optimised build; scripts/test runs it"]
fn a_crash_kills_no_chain_falsely_and_revives_none() {
    let budget = Budget {
        uses: 3,
        crashes: 1,
        lapses: 1,
        ..NO_CRASH
    };
    for reuse in REUSES {
        check(reuse, 2, budget);
    }
}

#[test]
#[ignore = "needs an optimised build; scripts/test runs it"]
fn three_workers_lose_no_token() {
    let budget = Budget {
        lost: 0,
        reinstalls: 0,
        uninstalls: 0,
        ..NO_CRASH
    };
    for reuse in [Reuse::FirstOnly, Reuse::NewestOnly] {
        check(reuse, 3, budget);
    }
}

/// Runs a smaller search, which is fast enough without optimisation.
#[test]
fn no_short_interleaving_loses_a_token() {
    let budget = Budget {
        uses: 3,
        crashes: 1,
        lapses: 1,
        reinstalls: 0,
        uninstalls: 0,
        ..NO_CRASH
    };
    for reuse in REUSES {
        let states = clean(&State::first(2, budget, First::Caller, 0), reuse);
        assert!(states > 1_000, "{states} states: the search stopped early");
    }
}
