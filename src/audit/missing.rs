//! What can be missing from a log, so that it does not explain a row.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use super::entry::{BASELINE, BaselineNote, EXPIRED, ExpiredNote, GAP};
use super::query::LogRecord;
use super::verify::{Ending, Report};
use super::writer::{HEARTBEAT, LONGEST_RUN, registry, to_count};
use crate::clock::to_millis;
use crate::store::{AuditStore, Error, RunEntry, RunId};

/// The time of the last event that can be missing, and of the last baseline.
#[derive(Clone, Debug, Default)]
pub(super) struct Missing {
    /// Whether the log is damaged, so that nothing is known.
    is_damaged: bool,
    /// In milliseconds since 1970.
    last: Option<u64>,
    baseline: Option<u64>,
}

impl Missing {
    pub(super) fn of(report: &Report) -> Self {
        Self {
            is_damaged: !report.findings.is_empty(),
            ..Self::default()
        }
    }

    /// Notes what a record says about missing ones.
    pub(super) fn note(&mut self, record: &LogRecord) {
        let public = &record.public;
        if public.event == GAP || record.erased.is_some() {
            self.until(public.time);
        } else if public.event == EXPIRED
            && let Ok(note) = serde_json::from_str::<ExpiredNote>(&public.note)
        {
            // Its last record is so much older.
            self.until(note.before.saturating_sub(to_count(LONGEST_RUN)));
        } else if public.event == BASELINE
            && let Ok(note) = serde_json::from_str::<BaselineNote>(&public.note)
        {
            self.baseline = self.baseline.max(Some(note.since));
        }
    }

    /// Notes that an event can be missing that happened at this time.
    pub(super) fn until(&mut self, time: u64) {
        self.last = self.last.max(Some(time));
    }

    /// Returns whether the log has all changes since the last baseline, or all of them.
    pub(super) fn is_nothing(&self) -> bool {
        let is_before = |last: u64| {
            let last = last.saturating_add(to_count(SKEW));
            self.baseline.is_some_and(|baseline| last < baseline)
        };
        !self.is_damaged && self.last.is_none_or(is_before)
    }

    /// Returns whether a row that was written then, and that no later baseline has, was removed.
    pub(super) fn is_past(&self, written: u64) -> bool {
        self.baseline.is_some_and(|baseline| written < baseline)
    }
}

/// The runs that have not ended.
#[derive(Default)]
pub(super) struct OpenRuns {
    /// Their processes may live. How often each has written all that waited.
    pub(super) living: HashMap<RunId, u64>,
    /// When the registry last heard of the others.
    pub(super) dead: Option<u64>,
}

impl OpenRuns {
    pub(super) async fn read(
        log: &dyn AuditStore,
        report: &Report,
        now: SystemTime,
    ) -> Result<Self, Error> {
        let ended = report.runs.iter();
        let ended = ended.filter(|run| run.ending == Ending::Ended);
        let ended: HashSet<_> = ended.map(|run| run.run).collect();
        let mut open = Self::default();
        for (run, entry) in registry(log).await? {
            if entry.is_ended || ended.contains(&run) {
                continue;
            }
            if is_living(&entry, now) {
                open.living.insert(run, entry.flushes);
            } else {
                open.dead = open
                    .dead
                    .max(Some(entry.touched.saturating_add(to_count(LIVING))));
            }
        }
        Ok(open)
    }

    /// Waits until each process that may live has shown that it does, or has ended its run. Returns
    /// whether all did in time.
    ///
    /// A process writes its entry every 10 s. If it did so twice, it has written in between all that
    /// was reported before this was called.
    pub(super) async fn prove(mut self, log: &dyn AuditStore) -> Result<bool, Error> {
        let mut seen: HashMap<RunId, u32> = HashMap::new();
        for _ in 0..PROOF.as_secs() {
            tokio::time::sleep(POLL).await;
            let entries: HashMap<_, _> = registry(log).await?.into_iter().collect();
            self.living.retain(|run, flushes| {
                let Some(entry) = entries.get(run) else {
                    return true;
                };
                if entry.flushes > *flushes {
                    *flushes = entry.flushes;
                    *seen.entry(*run).or_default() += 1;
                }
                !entry.is_ended && seen.get(run) < Some(&2)
            });
            if self.living.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn is_living(entry: &RunEntry, now: SystemTime) -> bool {
    let silent = to_millis(now).saturating_sub(entry.touched);
    silent < to_count(LIVING)
}

/// How much the clocks of two processes may differ.
pub(super) const SKEW: Duration = Duration::from_secs(300);

/// For how long after its last sign of life a process may live, and change rows.
const LIVING: Duration = Duration::from_secs(600);

/// How long living processes have to show that they live.
const PROOF: Duration = Duration::from_secs(3 * HEARTBEAT.as_secs());
const POLL: Duration = Duration::from_secs(1);
