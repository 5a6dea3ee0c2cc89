//! A steady run: callers request tokens that live for seconds, while `scripts/chaos` disturbs the
//! servers and the processes.
//!
//! The input has one word per line: `fault` when the disturbance begins, `over` when it ends, and
//! `end` at the end of the run. These words change the data key:
//!
//! * `rotate` adds a key, promotes it, and seals all rows again. Then the output has `rotated`.
//! * `renew` replaces every process by a new one. Then the output has `renewed`.
//! * `destroy` seals the rest again and destroys the old key. Then the output has `destroyed`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use slack_installs::MasterKey;
use slack_installs::testing::{FakeSlack, Fault, Rotation, World};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::drill::{Drill, Drilled};
use crate::fleet::{Fleet, Process};
use crate::options::Options;
use crate::orders::Orders;
use crate::steady::Steady;
use crate::tally::{Fingerprint, Report};
use crate::workspaces::Workspaces;
use crate::{Failure, backends, process};

/// One request of a token, as the parent heard of it.
struct Called {
    at: Instant,
    place: usize,
    wait: Duration,
    is_served: bool,
    /// Whether it failed because of a data key.
    is_of_key: bool,
}

/// What happened in a run.
pub(crate) struct Course {
    calls: Vec<Called>,
    reasons: BTreeMap<String, usize>,
    /// The tokens that were served, and the workspace that each was served for.
    tokens: HashMap<Fingerprint, usize>,
    /// How often a token was served for two workspaces.
    mixed: usize,
    rotations: Vec<JoinHandle<Result<Drilled, Failure>>>,
    /// What the operators did, if the data key was rotated.
    drilled: Option<Drilled>,
    begun: Instant,
    fault: Option<Instant>,
    over: Option<Instant>,
    ended: Instant,
    apart: usize,
    has_rate: bool,
    no_failure: Option<Duration>,
    duplicates: usize,
    lost: usize,
    /// Whether a process did not end in time.
    is_stuck: bool,
}

pub(crate) async fn run(options: &Options, steady: Steady) -> Result<Course, Failure> {
    let backend = backends::open(&options.backend).await?;
    let fake = FakeSlack::start_with(World::default()).await?;
    fake.rotate_tokens(Rotation {
        grace: options.grace,
        token_life: options.token_life,
        ..Rotation::default()
    });
    let orders = Orders {
        backend: options.backend.clone(),
        callers: options.callers,
        each: options.each,
        workspaces: options.workspaces,
        slack: fake.environment().base().to_string(),
        client_id: fake.client_id().to_string(),
        client_secret: fake.client_secret().expose().to_owned(),
        master_key: MasterKey::generate().to_base64().to_string(),
        key_url: options.key_url.clone(),
        operation: None,
        pause_at: None,
        steady: Some(steady),
    };
    let workspaces = Workspaces::open(&fake, Arc::clone(&backend), &orders).await?;
    workspaces.install().await?;
    fake.inject("oauth.v2.access", Fault::delay(options.latency).always());
    let mut course = Course {
        calls: Vec::new(),
        reasons: BTreeMap::new(),
        tokens: HashMap::new(),
        mixed: 0,
        rotations: Vec::new(),
        drilled: None,
        begun: Instant::now(),
        fault: None,
        over: None,
        ended: Instant::now(),
        apart: steady.apart,
        has_rate: steady.has_rate,
        no_failure: steady.no_failure,
        duplicates: 0,
        lost: 0,
        is_stuck: false,
    };
    let old = workspaces.data_key().await?;
    let drill = |destroys| Drill {
        orders: orders.clone(),
        old: old.clone(),
        destroys,
        kills: if destroys {
            options.kills / 2
        } else {
            options.kills.div_ceil(2)
        },
        seed: options.seed,
    };
    let fleet = Fleet::new(orders.clone(), 0);
    course.follow(fleet, options.processes, drill).await?;
    course.duplicates = fake.refresh_counts().duplicates;
    // As a new process: the one above has the old data key in its memory.
    let workspaces = Workspaces::open(&fake, backend, &orders).await?;
    course.sum_up_rotation().await?;
    if course.drilled.is_some() {
        workspaces.check_rotation(&old).await?;
    }
    course.lost = options.workspaces - workspaces.alive().await?;
    workspaces.remove().await?;
    Ok(course)
}

impl Course {
    /// Runs the processes until the input says that the run is over. Replaces a killed process.
    async fn follow(
        &mut self,
        fleet: Fleet,
        size: usize,
        drill: impl Fn(bool) -> Drill,
    ) -> Result<(), Failure> {
        let (news, mut coming) = mpsc::unbounded_channel();
        let mut processes = Vec::new();
        for number in 0..size {
            processes.push(fleet.launch(number, &news).await?);
        }
        let mut running = size;
        let (mut waiting, mut renewing) = (size, 0);
        let mut words = process::read_input();
        let (mut is_running, mut is_over) = (false, false);
        while !is_over {
            tokio::select! {
                word = words.recv() => match word.as_deref() {
                    Some("fault") => self.fault = Some(Instant::now()),
                    Some("over") => self.over = Some(Instant::now()),
                    Some("rotate") => self.begin(drill(false), "rotated"),
                    Some("destroy") => self.begin(drill(true), "destroyed"),
                    Some("renew") => {
                        renewing = size;
                        end_all(&mut processes).await;
                    }
                    _ => is_over = true,
                },
                told = coming.recv() => {
                    let (number, report) = told.ok_or("no process of the fleet is running")?;
                    match report {
                        Some(Report::Ready) => {
                            processes[number].say("go").await?;
                            waiting = waiting.saturating_sub(1);
                            if waiting == 0 && !is_running {
                                is_running = true;
                                self.begun = Instant::now();
                                println!("running");
                            }
                            renewing = match renewing {
                                0 => 0,
                                1 => {
                                    println!("renewed");
                                    0
                                }
                                more => more - 1,
                            };
                        }
                        Some(report) => self.note(report),
                        None => {
                            processes[number].ended().await?;
                            processes.push(fleet.launch(processes.len(), &news).await?);
                        }
                    }
                }
            }
        }
        self.ended = Instant::now();
        end_all(&mut processes).await;
        let rest = async {
            while running > 0 {
                match coming.recv().await {
                    Some((_, Some(report))) => self.note(report),
                    Some((_, None)) => running -= 1,
                    None => break,
                }
            }
        };
        self.is_stuck = timeout(ENDING, rest).await.is_err();
        Ok(())
    }

    fn note(&mut self, report: Report) {
        let Report::Called(wait, place, outcome) = report else {
            return;
        };
        self.calls.push(Called {
            at: Instant::now(),
            place,
            wait,
            is_served: outcome.is_ok(),
            is_of_key: matches!(&outcome, Err(refusal) if refusal.is_of_key),
        });
        match outcome {
            Ok(token) => {
                let owner = *self.tokens.entry(token).or_insert(place);
                self.mixed += usize::from(owner != place);
            }
            Err(refusal) => *self.reasons.entry(refusal.reason).or_default() += 1,
        }
    }

    /// Starts a part of a rotation.
    fn begin(&mut self, drill: Drill, done: &'static str) {
        self.rotations.push(tokio::spawn(async move {
            let drilled = drill.run().await;
            // The script waits for this word after a failure too.
            println!("{done}");
            drilled
        }));
    }

    async fn sum_up_rotation(&mut self) -> Result<(), Failure> {
        for part in self.rotations.drain(..) {
            let part = part.await??;
            let sum = self.drilled.get_or_insert_default();
            sum.kills += part.kills;
            sum.rows += part.rows;
            sum.took += part.took;
        }
        Ok(())
    }

    /// Returns the failures that should not have happened, and how long after the end of the fault
    /// the last request failed.
    fn wrong(&self) -> (usize, Option<Duration>) {
        let (fault, over) = (
            self.fault.unwrap_or(self.ended),
            self.over.unwrap_or(self.ended),
        );
        let failed = self.calls.iter().filter(|call| !call.is_served);
        let last = failed
            .clone()
            .filter_map(|call| call.at.checked_duration_since(over))
            .max();
        let Some(no_failure) = self.no_failure else {
            return (0, last);
        };
        let expected = fault + no_failure..over + SOON;
        let wrong = failed.filter(|call| !call.is_of_key || !expected.contains(&call.at));
        (wrong.count(), last)
    }

    /// Returns how many requests per second were served in this period. The workspaces that have
    /// their own callers do not count.
    fn rate(&self, from: Instant, to: Instant) -> f64 {
        let served = self.calls.iter().filter(|call| {
            call.is_served && call.place >= self.apart && (from..to).contains(&call.at)
        });
        served.count() as f64 / (to - from).as_secs_f64().max(0.001)
    }

    /// Returns the rate before the fault, and the share of it that was left during the fault.
    fn share(&self) -> (f64, f64) {
        let (Some(fault), Some(over)) = (self.fault, self.over) else {
            return (self.rate(self.begun, self.ended), 1.0);
        };
        let before = self.rate(self.begun + WARM_UP, fault);
        (before, self.rate(fault, over) / before.max(0.001))
    }

    /// Returns how long after the fault the rate was back, for a second, at 80 % of that before.
    fn recovery(&self) -> Option<Duration> {
        let over = self.over?;
        let wanted = self.share().0 * 0.8;
        let mut times = (0..).map(|step| Duration::from_millis(step * 100));
        let until = self.ended - Duration::from_secs(1);
        times
            .by_ref()
            .take_while(|time| over + *time <= until)
            .find(|time| self.rate(over + *time, over + *time + Duration::from_secs(1)) >= wanted)
    }

    fn hung(&self) -> usize {
        let hung = self.calls.iter().filter(|call| call.wait > PATIENCE);
        hung.count()
    }

    /// Returns whether nothing was lost, nothing hung, and, unless `--rate 0` is set, enough requests
    /// were served.
    pub(crate) fn is_well(&self) -> bool {
        let is_fair = self.apart == 0 || self.share().1 >= 0.8;
        let is_back = self.over.is_none() || self.recovery().is_some();
        let is_served = !self.has_rate || is_back && is_fair;
        let is_intact = self.lost == 0 && self.mixed == 0 && self.wrong().0 == 0;
        let is_single = self.drilled.is_none() || self.duplicates == 0;
        is_intact && is_single && self.hung() == 0 && !self.is_stuck && is_served
    }

    /// Returns the line of the table: the columns of `scripts/chaos`.
    pub(crate) fn line(&self) -> String {
        let (before, share) = self.share();
        let recovery = match self.recovery() {
            Some(time) => format!("{:.1} s", time.as_secs_f64()),
            None if self.over.is_none() => "-".to_owned(),
            None => "never".to_owned(),
        };
        let failed: usize = self.reasons.values().sum();
        format!(
            "{:>4} {:>6} {:>4} {recovery:>8} {before:>6.0}/s {:>5.0} % {failed:>6}",
            self.lost,
            self.duplicates,
            self.hung() + usize::from(self.is_stuck),
            share * 100.0,
        )
    }

    /// Returns what only matters for faults of data keys.
    pub(crate) fn notes(&self) -> Vec<String> {
        let (wrong, last) = self.wrong();
        let failed = self.calls.iter().filter(|call| !call.is_served);
        let longest = failed.map(|call| call.wait).max().unwrap_or_default();
        let mut notes = vec![format!(
            "{} requests, {wrong} failures that should not have happened, {} tokens of another \
             workspace; the longest failed request took {longest:.1?}; the last failure after the end \
             of the fault: {last:.1?}",
            self.calls.len(),
            self.mixed,
        )];
        notes.extend(self.drilled.as_ref().map(|drilled| {
            let seconds = drilled.took.as_secs_f64().max(0.001);
            format!(
                "{} kills of the operator; {} rows sealed again, {:.0} per second",
                drilled.kills,
                drilled.rows,
                drilled.rows as f64 / seconds,
            )
        }));
        notes
    }

    /// Returns how many requests were served in each second, with `|` where the fault begins and
    /// ends.
    pub(crate) fn seconds(&self) -> String {
        let second = Duration::from_secs(1);
        let is_in =
            |at: Option<Instant>, from| at.is_some_and(|at| at >= from && at < from + second);
        let starts = std::iter::successors(Some(self.begun), |from| Some(*from + second));
        let starts = starts.take_while(|from| *from + second <= self.ended);
        let words = starts.map(|from| {
            let mark = if is_in(self.fault, from) || is_in(self.over, from) {
                "|"
            } else {
                ""
            };
            format!("{mark}{:.0}", self.rate(from, from + second))
        });
        words.collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn reasons(&self) -> &BTreeMap<String, usize> {
        &self.reasons
    }
}

async fn end_all(processes: &mut [Process]) {
    for process in processes {
        // A process that has ended has no input any longer.
        let _ = process.say("over").await;
    }
}

/// How soon after the end of a fault of keys every request is served.
const SOON: Duration = Duration::from_secs(10);

/// The time of a fleet's first refreshes and connections.
const WARM_UP: Duration = Duration::from_secs(3);

/// The rotator's patience, and time for a busy machine.
const PATIENCE: Duration = Duration::from_secs(21);

/// The longest time that callers and `shutdown` wait, and more.
const ENDING: Duration = Duration::from_secs(60);
