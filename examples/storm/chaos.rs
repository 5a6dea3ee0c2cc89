//! A steady run: callers request tokens that live for seconds, while `scripts/chaos` disturbs the
//! servers and the processes.
//!
//! The input has one word per line: `fault` when the disturbance begins, `over` when it ends, and
//! `end` at the end of the run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use slack_installs::MasterKey;
use slack_installs::testing::{FakeSlack, Fault, Rotation, World};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::fleet::Fleet;
use crate::options::Options;
use crate::orders::Orders;
use crate::steady::Steady;
use crate::tally::Report;
use crate::workspaces::Workspaces;
use crate::{Failure, backends, process};

/// One request of a token, as the parent heard of it.
struct Called {
    at: Instant,
    place: usize,
    wait: Duration,
    is_served: bool,
}

/// What happened in a run.
pub(crate) struct Course {
    calls: Vec<Called>,
    reasons: BTreeMap<String, usize>,
    begun: Instant,
    fault: Option<Instant>,
    over: Option<Instant>,
    ended: Instant,
    apart: usize,
    has_rate: bool,
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
        pause_at: None,
        steady: Some(steady),
    };
    let workspaces = Workspaces::open(&fake, Arc::clone(&backend), &orders).await?;
    workspaces.install().await?;
    fake.inject("oauth.v2.access", Fault::delay(options.latency).always());
    let mut course = Course {
        calls: Vec::new(),
        reasons: BTreeMap::new(),
        begun: Instant::now(),
        fault: None,
        over: None,
        ended: Instant::now(),
        apart: steady.apart,
        has_rate: steady.has_rate,
        duplicates: 0,
        lost: 0,
        is_stuck: false,
    };
    course
        .follow(Fleet::new(orders, 0), options.processes)
        .await?;
    course.duplicates = fake.refresh_counts().duplicates;
    course.lost = options.workspaces - workspaces.alive().await?;
    workspaces.remove().await?;
    Ok(course)
}

impl Course {
    /// Runs the processes until the input says that the run is over. Replaces a killed process.
    async fn follow(&mut self, fleet: Fleet, size: usize) -> Result<(), Failure> {
        let (news, mut coming) = mpsc::unbounded_channel();
        let mut processes = Vec::new();
        for number in 0..size {
            processes.push(fleet.launch(number, &news).await?);
        }
        let mut running = size;
        let mut waiting = size;
        let mut words = process::read_input();
        let (mut is_running, mut is_over) = (false, false);
        while !is_over {
            tokio::select! {
                word = words.recv() => match word.as_deref() {
                    Some("fault") => self.fault = Some(Instant::now()),
                    Some("over") => self.over = Some(Instant::now()),
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
        for process in &mut processes {
            // A killed process has no input any longer.
            let _ = process.say("over").await;
        }
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
        if let Report::Called(wait, place, reason) = report {
            self.calls.push(Called {
                at: Instant::now(),
                place,
                wait,
                is_served: reason.is_none(),
            });
            if let Some(reason) = reason {
                *self.reasons.entry(reason).or_default() += 1;
            }
        }
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
        self.lost == 0 && self.hung() == 0 && !self.is_stuck && is_served
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

/// The time of a fleet's first refreshes and connections.
const WARM_UP: Duration = Duration::from_secs(3);

/// The rotator's patience, and time for a busy machine.
const PATIENCE: Duration = Duration::from_secs(21);

/// The longest time that callers and `shutdown` wait, and more.
const ENDING: Duration = Duration::from_secs(60);
