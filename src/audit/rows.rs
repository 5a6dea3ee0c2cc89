//! Compares the versions that the log recorded with the rows that are stored.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use futures_util::TryStreamExt as _;

use super::missing::{Missing, OpenRuns, SKEW};
use super::query::{Filter, LogRecord, records};
use super::verify::Report;
use super::writer::to_count;
use crate::clock::to_millis;
use crate::store::{AuditStore, Error, StoredRow, StoredRows};
use crate::tenant::InstallationKey;

/// The result of [`compare`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RowReport {
    /// The number of stored rows.
    pub rows: u64,
    /// The rows that differ from the log.
    pub findings: Vec<RowFinding>,
    /// Whether the log has all changes since the last baseline, or since its begin. If not, a row that
    /// differs can be [`RowFault::Unknown`].
    pub is_complete: bool,
}

/// A row that differs from the log.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct RowFinding {
    /// The tenant.
    pub tenant: InstallationKey,
    /// The row: `bot`, `install`, `hold` and so on.
    pub row: String,
    /// How it differs.
    pub fault: RowFault,
}

/// How a row differs from the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RowFault {
    /// A later version or the removal is recorded, or the row is missing and its removal is not
    /// recorded. An older copy of the row was put back, or the row was deleted, past the store.
    /// Missing records do not change this if a later version is recorded.
    RolledBack,
    /// No record has this version. The row was written past the store, or before the log began
    /// ([`Audit::note_rows`](super::Audit::note_rows)).
    Unlogged,
    /// The same, but records are missing which could explain it: in a gap, after a crash, of an
    /// erased tenant, or past their retention.
    Unknown,
}

/// Compares the rows of all tenants with the versions that the log recorded.
///
/// `report` is the result of [`verify`](super::verify()), and `now` the current time. If a row
/// differs, and a process of the app may live, this waits up to 30 s until the process has shown that
/// it lives, and reads the log again. A process that does not may have crashed. What it changed last
/// has no record, so a row is then [`RowFault::Unknown`]. After a crash, call
/// [`Audit::note_rows`](super::Audit::note_rows): what was lost before explains nothing afterwards.
///
/// It reads all rows and then the whole log. It keeps the versions of all changes in memory: about
/// 300 bytes for each.
///
/// # Errors
///
/// [`Error::Unavailable`], if a database or the key provider does not respond.
pub async fn compare(
    log: &dyn AuditStore,
    rows: &dyn StoredRows,
    report: &Report,
    now: SystemTime,
) -> Result<RowReport, Error> {
    // The rows first: what is stored was recorded before, and is read afterwards.
    let mut stored = Vec::new();
    let mut from = None;
    loop {
        let page = rows.stored_rows(from).await?;
        stored.extend(page.rows);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    let open = OpenRuns::read(log, report, now).await?;
    let mut missing = Missing::of(report);
    if let Some(dead) = open.dead {
        missing.until(dead);
    }
    let found = History::read(log, missing.clone()).await?.judge(&stored);
    if found.findings.is_empty() || open.living.is_empty() {
        return Ok(found);
    }
    if !open.prove(log).await? {
        missing.until(to_millis(now));
    }
    Ok(History::read(log, missing).await?.judge(&stored))
}

/// What the log says of all rows.
#[derive(Default)]
struct History {
    missing: Missing,
    rows: HashMap<(InstallationKey, String), RowHistory>,
    /// When all rows of a tenant were removed.
    clears: HashMap<InstallationKey, Vec<u64>>,
}

/// What the log says of one row. Versions are hex digits.
#[derive(Default)]
struct RowHistory {
    /// The versions that were written, and when they were written or found last. An outcome can be
    /// unknown.
    written: HashMap<String, (u64, bool)>,
    /// The versions that were replaced or removed.
    gone: HashSet<String>,
    /// The versions that may have been removed: the outcome is unknown.
    maybe_gone: HashSet<String>,
    /// The version that replaces another, if the outcome is unknown.
    unsure: Vec<(String, String)>,
    /// The versions that were read or replaced, so that they were stored.
    seen: HashSet<String>,
}

impl RowHistory {
    /// Notes that a version was stored. The records of several runs are in no order.
    fn wrote(&mut self, version: String, time: u64, is_done: bool) {
        let written = self.written.entry(version).or_default();
        *written = (written.0.max(time), written.1 || is_done);
    }
}

impl History {
    async fn read(log: &dyn AuditStore, missing: Missing) -> Result<Self, Error> {
        let mut history = Self {
            missing,
            ..Self::default()
        };
        let all = records(log, Filter::default());
        all.try_for_each(|record| {
            history.note(&record);
            std::future::ready(Ok(()))
        })
        .await?;
        history.settle();
        Ok(history)
    }

    fn note(&mut self, record: &LogRecord) {
        self.missing.note(record);
        let Some(detail) = &record.detail else {
            return;
        };
        let Some(tenant) = detail.tenant.clone() else {
            return;
        };
        let (time, is_done) = (record.public.time, record.is_done());
        if record.public.event == "clear" {
            if is_done {
                self.clears.entry(tenant).or_default().push(time);
            }
            return;
        }
        let row = self.rows.entry((tenant, detail.row.clone())).or_default();
        let (version, replaced) = (detail.version.clone(), detail.replaced.clone());
        row.seen.extend(replaced.clone());
        match (record.public.event.as_str(), version, replaced) {
            ("open", version, _) => row.seen.extend(version),
            ("found", Some(version), _) => row.wrote(version, time, true),
            ("write", Some(version), replaced) => {
                match replaced {
                    Some(replaced) if is_done => drop(row.gone.insert(replaced)),
                    Some(replaced) => row.unsure.push((version.clone(), replaced)),
                    None => {}
                }
                row.wrote(version, time, is_done);
            }
            ("remove", _, Some(replaced)) if is_done => drop(row.gone.insert(replaced)),
            ("remove", _, Some(replaced)) => drop(row.maybe_gone.insert(replaced)),
            _ => {}
        }
    }

    /// Decides on writes whose outcome was unknown.
    fn settle(&mut self) {
        for row in self.rows.values_mut() {
            for (version, replaced) in std::mem::take(&mut row.unsure) {
                if row.seen.contains(&version) {
                    row.gone.insert(replaced);
                } else {
                    row.maybe_gone.insert(replaced);
                }
            }
        }
    }

    fn judge(&self, stored: &[StoredRow]) -> RowReport {
        let mut found = RowReport {
            is_complete: self.missing.is_nothing(),
            ..RowReport::default()
        };
        let mut present = HashSet::new();
        for row in stored {
            found.rows += 1;
            let key = (row.tenant.clone(), row.row.clone());
            let version = format!("{:?}", row.version);
            if let Some(fault) = self.fault(&key, &version) {
                found.find(&key, fault);
            }
            present.insert(key);
        }
        for (key, row) in &self.rows {
            if !present.contains(key) && self.leaves(key, row).next().is_some() {
                found.find(key, self.unless_missing(RowFault::RolledBack));
            }
        }
        let place = |it: &RowFinding| (it.tenant.id().to_owned(), it.row.clone());
        found.findings.sort_by_key(place);
        found
    }

    /// Returns this fault, unless a missing record can explain the row.
    fn unless_missing(&self, fault: RowFault) -> RowFault {
        if self.missing.is_nothing() {
            fault
        } else {
            RowFault::Unknown
        }
    }

    /// Judges a stored row.
    fn fault(&self, key: &(InstallationKey, String), version: &str) -> Option<RowFault> {
        let Some(row) = self.rows.get(key) else {
            return Some(self.unless_missing(RowFault::Unlogged));
        };
        let leaves: Vec<_> = self.leaves(key, row).map(String::as_str).collect();
        match row.written.get(version) {
            // No missing record explains it: a version is written only once.
            _ if row.gone.contains(version) => Some(RowFault::RolledBack),
            None => Some(self.unless_missing(RowFault::Unlogged)),
            Some(_) if leaves.is_empty() || leaves.contains(&version) => None,
            // Without a leaf, the outcome of the last write was unknown.
            Some(_) => Some(self.unless_missing(RowFault::RolledBack)),
        }
    }

    /// Returns the versions that must be stored: they were written, and nothing came after them.
    fn leaves<'a>(
        &'a self,
        (tenant, _): &'a (InstallationKey, String),
        row: &'a RowHistory,
    ) -> impl Iterator<Item = &'a String> {
        let written = row.written.iter();
        let leaves = written.filter(move |(version, (time, is_done))| {
            *is_done
                && !row.gone.contains(*version)
                && !row.maybe_gone.contains(*version)
                && !self.may_be_cleared(tenant, *time)
                && !self.missing.is_past(*time)
        });
        leaves.map(|(version, _)| version)
    }

    /// Returns whether a row that was written then may have been removed with all rows of its tenant.
    /// The removal names the rows, except one that was written at the same time.
    fn may_be_cleared(&self, tenant: &InstallationKey, written: u64) -> bool {
        let clears = self.clears.get(tenant).into_iter().flatten();
        let skew = to_count(SKEW);
        clears.into_iter().any(|clear| {
            let since = clear.saturating_sub(skew)..=clear.saturating_add(skew);
            since.contains(&written)
        })
    }
}

impl RowReport {
    fn find(&mut self, (tenant, row): &(InstallationKey, String), fault: RowFault) {
        self.findings.push(RowFinding {
            tenant: tenant.clone(),
            row: row.clone(),
            fault,
        });
    }
}
