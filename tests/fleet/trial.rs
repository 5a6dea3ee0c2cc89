//! One process is killed or stopped at one step of a refresh, and another process takes over.

use std::fmt;
use std::time::Duration;

use slack_installs::testing::{GracePolicy, RefreshCounts, Rotation};

use crate::child::{Child, Event, Permit};
use crate::orders::{Order, Word};
use crate::slack::{ASKED, DONE};
use crate::world::World;

/// What happens at the step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Signal {
    /// SIGKILL.
    Kill,
    /// SIGSTOP. SIGCONT follows when the lease has lapsed and another process has taken over.
    Stop,
}

/// What happens after the step, when the lease has lapsed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Meanwhile {
    /// A caller asks another process.
    Ask,
    /// Another process's worker refreshes what is due.
    Work,
    /// The app is installed again.
    Reinstall,
    /// The app is removed.
    Uninstall,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Case {
    pub(crate) signal: Signal,
    pub(crate) meanwhile: Meanwhile,
    pub(crate) grace: Duration,
    pub(crate) policy: GracePolicy,
}

/// The state of the refresh at the step, as Slack and the database know it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reached {
    pub(crate) is_leased: bool,
    pub(crate) is_issued: bool,
    pub(crate) is_saved: bool,
}

/// The outcome of a disturbance.
pub(crate) struct Outcome {
    pub(crate) case: Case,
    pub(crate) nth: usize,
    pub(crate) step: String,
    pub(crate) reached: Reached,
    /// The result of the stopped process, and whether the token was alive then.
    pub(crate) first: Option<Heard>,
    /// The result of the process that took over.
    pub(crate) second: Heard,
    /// The result of the last call.
    pub(crate) last: Heard,
    pub(crate) counts: RefreshCounts,
    pub(crate) stored: Stored,
    /// Pairs that Slack would accept and no process knows.
    pub(crate) forgotten: usize,
    pub(crate) live: usize,
}

/// A result, and the state of its token at that time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Heard {
    Live(String),
    Stale,
    Later(String),
    Never(String),
}

/// The row after the last call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stored {
    Nothing,
    Dead,
    /// Slack does not accept the stored access token.
    Stale,
    Current,
}

impl World {
    /// Returns the steps of an undisturbed refresh.
    pub(crate) async fn steps(&mut self, other: &mut Child) -> Vec<String> {
        let team = self.expired(Rotation::default(), other).await;
        let mut process = self.process(true).await;
        self.front.hold(process.sender.clone());
        process.tell(Order::Ask(team)).await;
        let mut steps = Vec::new();
        loop {
            match process.next().await {
                Event::Step(name, permit) => {
                    steps.push(name);
                    process.go(permit).await;
                }
                Event::Said(Word::Token(token)) => {
                    assert!(self.is_live(&token), "an undisturbed refresh succeeds");
                    self.front.free();
                    return steps;
                }
                other => panic!("expected an undisturbed refresh to succeed, got {other:?}"),
            }
        }
    }

    /// A process dies with the lease, and another process is asked at once. It reads repeatedly,
    /// and calls Slack only after the lease has lapsed.
    pub(crate) async fn outwait(&mut self, other: &mut Child) {
        let team = self.expired(Rotation::default(), other).await;
        let before = self.fake.refresh_counts().calls;
        let mut first = self.process(true).await;
        first.tell(Order::Ask(team.clone())).await;
        while !self
            .reached(&team, self.fake.refresh_counts())
            .await
            .is_leased
        {
            reach(&mut first, 1).await;
            first.tell(Order::Go).await;
        }
        first.kill().await;

        let mut second = self.process(true).await;
        second.tell(Order::Ask(team.clone())).await;
        for _ in 0..LOOKS {
            let (step, permit) = reach(&mut second, 1).await;
            assert!(step.ends_with("read"), "expected only reads, got: {step}");
            second.go(permit).await;
        }
        assert_eq!(self.fake.refresh_counts().calls, before);
        self.jump(PAST_THE_LEASE, other).await;
        second.tell(Order::Jump(PAST_THE_LEASE)).await;
        second.tell(Order::Free).await;
        let word = second.answer().await;
        let mut heard = self.judged(word);
        // If time passed during a read, the process assumes that it has stalled.
        if let Heard::Later(_) = heard {
            heard = self.ask(&mut second, &team).await;
        }
        assert!(
            matches!(heard, Heard::Live(_)),
            "the second process takes over: {heard:?}"
        );
        assert_eq!(self.fake.refresh_counts().calls, before + 1);
    }

    /// Disturbs a refresh at its nth step, counted from 1.
    pub(crate) async fn disturb(&mut self, case: Case, nth: usize, other: &mut Child) -> Outcome {
        let rotation = Rotation {
            grace: case.grace,
            policy: case.policy,
            ..Rotation::default()
        };
        let team = self.expired(rotation, other).await;
        let (before, secrets) = (self.fake.refresh_counts(), self.fake.secrets().len());
        let mut process = self.process(true).await;
        self.front.hold(process.sender.clone());
        process.tell(Order::Ask(team.clone())).await;
        let (step, permit) = reach(&mut process, nth).await;
        let reached = self.reached(&team, before).await;

        match case.signal {
            Signal::Kill => process.kill().await,
            Signal::Stop => process.stop().await,
        }
        self.front.free();
        let permit = match (case.signal, &*step) {
            (Signal::Stop, ASKED) => carry_out(&mut process, permit).await,
            _ => permit,
        };
        self.jump(PAST_THE_LEASE, other).await;
        match case.meanwhile {
            Meanwhile::Ask => {}
            Meanwhile::Work => self.work(&team).await,
            Meanwhile::Reinstall => self.install(&team).await,
            Meanwhile::Uninstall => self.uninstall(&team).await,
        }
        let second = self.ask(other, &team).await;
        let first = match case.signal {
            Signal::Kill => None,
            Signal::Stop => {
                process.tell(Order::Jump(PAST_THE_LEASE)).await;
                process.tell(Order::Free).await;
                process.resume().await;
                let first = process.answer().await;
                let first = self.judged(first);
                assert!(process.end().await, "a process that continues can end");
                drop(permit);
                Some(first)
            }
        };
        let last = self.ask(other, &team).await;
        let chain = self.chain(&team).await;
        let after = self.fake.refresh_counts();
        let mut counts = RefreshCounts::default();
        counts.accepted = after.accepted - before.accepted;
        counts.calls = after.calls - before.calls;
        counts.duplicates = after.duplicates - before.duplicates;
        let outcome = Outcome {
            case,
            nth,
            step,
            reached,
            first,
            second,
            last,
            counts,
            stored: match &chain {
                None => Stored::Nothing,
                Some(it) if it.chain.is_dead => Stored::Dead,
                Some(it) => {
                    if self.fake.is_live(it.grant.access_token.expose()) {
                        Stored::Current
                    } else {
                        Stored::Stale
                    }
                }
            },
            forgotten: self.forgotten(secrets, chain.as_ref()),
            live: self.fake.live_tokens(&team, None),
        };
        // The workers of the next trial must not repair what was lost here.
        self.forget(&team).await;
        outcome
    }

    async fn reached(&self, team: &str, before: RefreshCounts) -> Reached {
        let chain = self.chain(team).await.expect("it is installed").chain;
        Reached {
            is_leased: chain.lease.is_some(),
            is_issued: self.fake.refresh_counts().accepted > before.accepted,
            is_saved: chain.generation > 0,
        }
    }

    /// Starts a process without callers, and waits until its worker has handled this workspace.
    async fn work(&self, team: &str) {
        let mut worker = self.process(false).await;
        worker.tell(Order::Work).await;
        loop {
            let chain = self.chain(team).await.expect("it is installed").chain;
            // A chain may wait for the pair of a process that was stopped.
            if chain.generation > 0 || chain.is_dead || chain.retry_at.is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert!(worker.end().await, "a worker can end");
    }

    async fn ask(&self, process: &mut Child, team: &str) -> Heard {
        process.tell(Order::Ask(team.to_owned())).await;
        let word = process.answer().await;
        self.judged(word)
    }

    fn judged(&self, word: Word) -> Heard {
        match word {
            Word::Token(token) if self.is_live(&token) => Heard::Live(token),
            Word::Token(_) => Heard::Stale,
            Word::Failed {
                why,
                is_transient: true,
            } => Heard::Later(why),
            Word::Failed { why, .. } => Heard::Never(why),
            other => panic!("expected a token or a failure, got {other:?}"),
        }
    }
}

/// Lets a process run to its nth step.
async fn reach(process: &mut Child, nth: usize) -> (String, Permit) {
    let mut left = nth;
    loop {
        match process.next().await {
            Event::Step(name, permit) => {
                left -= 1;
                if left == 0 {
                    return (name, permit);
                }
                process.go(permit).await;
            }
            other => panic!("expected another step, got {other:?}"),
        }
    }
}

/// Lets Slack carry out a request although its process is stopped. The response is late: when the
/// process continues, its own timeouts fire first. Returns the permit for the response.
async fn carry_out(process: &mut Child, permit: Permit) -> Permit {
    process.go(permit).await;
    match process.next().await {
        Event::Step(name, permit) if name == DONE => permit,
        other => panic!("expected Slack to carry out the request, got {other:?}"),
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, step {} ({}): {} calls, {} again; first {:?}, second {:?}, last {:?}; \
             stored {:?}, {} live, {} forgotten",
            self.case,
            self.nth,
            self.step,
            self.counts.calls,
            self.counts.duplicates,
            self.first,
            self.second,
            self.last,
            self.stored,
            self.live,
            self.forgotten,
        )
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grace = self.grace.as_secs();
        write!(
            f,
            "{:?}, {:?}, {grace} s, {:?}",
            self.signal, self.meanwhile, self.policy
        )
    }
}

/// A lease lasts 15 s.
const PAST_THE_LEASE: Duration = Duration::from_secs(16);

/// Before and after each of four reads.
const LOOKS: usize = 8;
