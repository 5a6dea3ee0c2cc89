//! The reports of the processes, and the result of the storm.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use ring::digest;
use slack_installs::testing::{FakeSlack, RefreshCounts};

use crate::Failure;
use crate::options::Options;

/// A report: one line of a process's output.
#[derive(Debug)]
pub(crate) enum Report {
    /// The process is ready.
    Ready,
    /// The process waits at its pause.
    Paused,
    /// A caller got this token after this time.
    Token(Duration, Fingerprint),
    /// A request failed after this time, for this reason.
    Failed(Duration, String),
    /// A request for the workspace of this number ended after this time, with an error or without.
    Called(Duration, usize, Option<String>),
    /// For this time, a pair that Slack had issued was not saved.
    Exposed(Duration),
}

/// Identifies a token and does not reveal it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Fingerprint(String);

impl Fingerprint {
    pub(crate) fn of(token: &str) -> Self {
        let hash = digest::digest(&digest::SHA256, token.as_bytes());
        Self(
            hash.as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Paused => f.write_str("paused"),
            Self::Token(wait, Fingerprint(token)) => {
                write!(f, "token {} {token}", wait.as_micros())
            }
            Self::Failed(wait, reason) => write!(f, "failed {} {reason}", wait.as_micros()),
            Self::Called(wait, place, reason) => {
                let reason = reason.as_deref().unwrap_or_default();
                write!(f, "called {} {place} {reason}", wait.as_micros())
            }
            Self::Exposed(time) => write!(f, "exposed {}", time.as_micros()),
        }
    }
}

impl Report {
    pub(crate) fn parse(line: &str) -> Result<Self, Failure> {
        let mut words = line.splitn(3, ' ');
        let kind = words.next().unwrap_or_default();
        match kind {
            "ready" => return Ok(Self::Ready),
            "paused" => return Ok(Self::Paused),
            _ => {}
        }
        let time = Duration::from_micros(words.next().unwrap_or_default().parse()?);
        let rest = words.next().unwrap_or_default().to_owned();
        match kind {
            "token" => Ok(Self::Token(time, Fingerprint(rest))),
            "failed" => Ok(Self::Failed(time, rest)),
            "exposed" => Ok(Self::Exposed(time)),
            "called" => {
                let (place, reason) = rest.split_once(' ').unwrap_or((&rest, ""));
                let reason = (!reason.is_empty()).then(|| reason.to_owned());
                Ok(Self::Called(time, place.parse()?, reason))
            }
            _ => Err("a process of the fleet wrote a line that is not a report".into()),
        }
    }
}

/// All reports so far.
#[derive(Default)]
pub(crate) struct Tally {
    waits: Vec<Duration>,
    exposed: Vec<Duration>,
    tokens: HashMap<Fingerprint, usize>,
    reasons: BTreeMap<String, usize>,
}

impl Tally {
    pub(crate) fn add(&mut self, report: Report) {
        match report {
            Report::Ready | Report::Paused | Report::Called(..) => {}
            Report::Token(wait, token) => {
                self.waits.push(wait);
                *self.tokens.entry(token).or_default() += 1;
            }
            Report::Failed(wait, reason) => {
                self.waits.push(wait);
                *self.reasons.entry(reason).or_default() += 1;
            }
            Report::Exposed(time) => self.exposed.push(time),
        }
    }

    /// Counts the results whose token Slack rejects now. A token that Slack accepts now was also
    /// valid when it was returned.
    fn unusable(&self, fake: &FakeSlack) -> usize {
        let secrets = fake.secrets();
        let live = secrets.iter().filter(|token| fake.is_live(token));
        let live: HashMap<_, _> = live.map(|token| (Fingerprint::of(token), ())).collect();
        let dead = |token: &&Fingerprint| !live.contains_key(*token);
        let dead = self.tokens.keys().filter(dead);
        dead.map(|token| self.tokens[token]).sum()
    }
}

/// The result of a storm.
pub(crate) struct Outcome {
    counts: RefreshCounts,
    exposed: Vec<Duration>,
    kills: usize,
    reasons: BTreeMap<String, usize>,
    seconds: f64,
    stored_current: usize,
    unusable: usize,
    waits: Vec<Duration>,
}

impl Outcome {
    pub(crate) fn new(
        mut tally: Tally,
        fake: &FakeSlack,
        stored_current: usize,
        kills: usize,
        took: Duration,
    ) -> Self {
        tally.waits.sort_unstable();
        tally.exposed.sort_unstable();
        Self {
            counts: fake.refresh_counts(),
            unusable: tally.unusable(fake),
            exposed: tally.exposed,
            kills,
            reasons: tally.reasons,
            seconds: took.as_secs_f64(),
            stored_current,
            waits: tally.waits,
        }
    }

    fn failed(&self) -> usize {
        self.reasons.values().sum()
    }

    /// Returns whether nothing failed and nothing was lost. A refresh token may be sent twice only
    /// if processes were killed, because their refreshes are repeated.
    pub(crate) fn is_well(&self, options: &Options) -> bool {
        self.failed() == 0
            && self.unusable == 0
            && self.stored_current == options.workspaces
            && (self.counts.duplicates == 0 || self.kills > 0)
    }

    pub(crate) fn line(&self, options: &Options) -> serde_json::Value {
        serde_json::json!({
            "backend": options.backend.split(':').next(),
            "processes": options.processes,
            "callers": options.callers,
            "workspaces": options.workspaces,
            "latency_ms": options.latency.as_millis(),
            "grace_s": options.grace.as_secs(),
            "killed": self.kills,
            "asked": self.waits.len(),
            "refresh_calls": self.counts.calls,
            "duplicate_calls": self.counts.duplicates,
            "failed": self.failed(),
            "reasons": self.reasons,
            "unusable": self.unusable,
            "stored_current": self.stored_current,
            "wait_p50_ms": millis(&self.waits, 0.5),
            "wait_p99_ms": millis(&self.waits, 0.99),
            "exposed_p50_ms": millis(&self.exposed, 0.5),
            "exposed_p99_ms": millis(&self.exposed, 0.99),
            "seconds": rounded(self.seconds),
        })
    }
}

/// Returns the percentile of these sorted times, in milliseconds.
fn millis(sorted: &[Duration], share: f64) -> Option<f64> {
    let place = (sorted.len() as f64 * share) as usize;
    let time = sorted.get(place.min(sorted.len().checked_sub(1)?))?;
    Some(rounded(time.as_secs_f64() * 1000.0))
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
