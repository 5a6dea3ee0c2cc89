//! What the audit log says: about one tenant, and whether the log is intact.

use std::pin::pin;
use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt as _;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::finding::Grade;
use super::health::Check;
use super::timestamp::{Timestamp, span};
use crate::audit::{self, Filter, LogRecord, Report, VerifyOptions};
use crate::error_chain::error_chain;
use crate::store::{AuditStore, Error};
use crate::tenant::InstallationKey;
use crate::wording::counted;

/// The last records of one tenant in the audit log. They are not verified, and have no secrets.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Trail {
    /// The records, in the order of their time.
    pub records: Vec<TrailRecord>,
    /// Whether the log was read to its end. If it is long, newer records may be missing.
    pub is_complete: bool,
}

/// One record of a [`Trail`].
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TrailRecord {
    /// When it happened.
    pub at: Timestamp,
    /// What happened: `open`, `write`, `remove`, …
    pub event: String,
    /// How it ended.
    pub outcome: String,
    /// How many equal events the record stands for.
    pub count: u64,
    /// The row.
    pub row: String,
    /// The part of the app that acted.
    pub actor: Option<String>,
    /// Why it acted.
    pub purpose: Option<String>,
    /// The user for whom it acted.
    pub user: Option<String>,
}

/// Returns the last records of a tenant in the audit log; `None` if the database has no log.
///
/// Reads the last day, and if that has no record of the tenant, the whole log, but for some seconds
/// at most.
///
/// # Errors
///
/// [`Error::Unavailable`], if the database does not respond.
///
/// # Cancel safety
///
/// Changes nothing. You can drop the call at any point.
pub async fn trail(
    store: &dyn AuditStore,
    tenant: &InstallationKey,
    last: usize,
    now: SystemTime,
) -> Result<Option<Trail>, Error> {
    if store.registry(None, 1).await?.is_empty() {
        return Ok(None);
    }
    let deadline = Instant::now() + PATIENCE;
    let mut trail = Trail::default();
    for from in [now.checked_sub(DAY), None] {
        let filter = Filter {
            from,
            tenant: Some(tenant.clone()),
            ..Filter::default()
        };
        let mut kept = Vec::new();
        let read = timeout_at(deadline, last_of(store, filter, last, &mut kept));
        trail.is_complete = match read.await {
            Ok(read) => read.map(|()| true)?,
            Err(_) => false,
        };
        shorten(&mut kept, last);
        trail.records = kept.iter().map(TrailRecord::of).collect();
        if !trail.records.is_empty() || !trail.is_complete {
            break;
        }
    }
    Ok(Some(trail))
}

async fn last_of(
    store: &dyn AuditStore,
    filter: Filter,
    last: usize,
    kept: &mut Vec<LogRecord>,
) -> Result<(), Error> {
    let mut records = pin!(audit::records(store, filter));
    while let Some(record) = records.try_next().await? {
        kept.push(record);
        if kept.len() > last.saturating_add(1000) {
            shorten(kept, last);
        }
    }
    Ok(())
}

/// Keeps the last records. Runs overlap, so a later record can be of an earlier time.
fn shorten(records: &mut Vec<LogRecord>, last: usize) {
    records.sort_by_key(|it| it.public.time);
    records.drain(..records.len().saturating_sub(last));
}

impl TrailRecord {
    fn of(it: &LogRecord) -> Self {
        let detail = it.detail.as_ref();
        Self {
            at: Timestamp(it.time()),
            event: it.public.event.clone(),
            outcome: it.public.outcome.clone(),
            count: it.public.count,
            row: detail.map(|it| it.row.clone()).unwrap_or_default(),
            actor: detail.and_then(|it| it.actor.clone()),
            purpose: detail.and_then(|it| it.purpose.clone()),
            user: detail.and_then(|it| it.user.clone()),
        }
    }
}

/// Checks whether the audit log is intact; `None` if the database has no log. It needs no anchor, so
/// it does not find a log that was rolled back as a whole: [`audit::verify`] does.
///
/// # Cancel safety
///
/// Changes nothing. You can drop the call at any point.
pub async fn check_audit(store: &dyn AuditStore, now: SystemTime) -> Option<Check> {
    let verified = async {
        if !audit::has_log(store).await? {
            return Ok(None);
        }
        let options = VerifyOptions::default();
        audit::verify(store, &options).await.map(Some)
    };
    match timeout_at(Instant::now() + LONGEST, verified).await {
        Ok(Ok(report)) => report.map(|report| check_of(&report, now)),
        Ok(Err(error)) => {
            let remedy = "check the database and its log, and run `slack-installs doctor` again";
            let text = format!("the log cannot be read: {}", error_chain(&error));
            Some(Check::new("audit", Grade::Failure, text, remedy))
        }
        Err(_) => {
            let text = format!(
                "the log is too long to be verified within {}",
                span(LONGEST)
            );
            let remedy = "`slack-installs audit verify` takes the time that it needs";
            Some(Check::new("audit", Grade::Warning, text, remedy))
        }
    }
}

fn check_of(report: &Report, now: SystemTime) -> Check {
    if let Some(first) = report.findings.first() {
        let faults = u64::try_from(report.findings.len()).unwrap_or(u64::MAX);
        let text = format!(
            "the log is not intact: run {} record {}: {:?}; {} in all",
            first.run,
            first.record,
            first.fault,
            counted(faults, "fault")
        );
        let remedy = "`slack-installs audit verify` names each fault; docs/audit.md has the \
                      meaning of each";
        return Check {
            count: faults,
            ..Check::new("audit", Grade::Failure, text, remedy)
        };
    }
    let runs = &report.runs;
    let lost: u64 = runs.iter().map(|run| run.lost).sum();
    if lost > 0 {
        let verb = if lost == 1 { "was" } else { "were" };
        let events = counted(lost, "event");
        let text = format!("{events} {verb} not recorded, because the queue was full");
        let remedy = "give the log a larger queue (`AuditOptions::with_capacity`), or write it in \
                      the strict mode; `slack-installs audit verify` names the runs";
        return Check {
            count: lost,
            ..Check::new("audit", Grade::Warning, text, remedy)
        };
    }
    let records: u64 = runs.iter().map(|run| run.records).sum();
    let newest = runs.iter().filter_map(|run| run.touched).max();
    let age = newest.map(|at| now.duration_since(at).unwrap_or_default());
    let age = age.map_or_else(String::new, |age| {
        format!("; it was last written {} ago", span(age))
    });
    let (runs, records) = (counted(runs.len(), "run"), counted(records, "record"));
    let text = format!("the log of {runs} and {records} is intact{age}");
    Check::ok("audit", text)
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest time for the records of one tenant: a person waits for them.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest time for the whole log.
const LONGEST: Duration = Duration::from_secs(120);
