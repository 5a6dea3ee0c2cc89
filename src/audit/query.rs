//! Reads records, and exports them.

use std::collections::VecDeque;
use std::time::SystemTime;

use futures_util::stream::{self, Stream, TryStreamExt as _};
use serde::Serialize;

use super::entry::{DONE, Detail};
use super::hash::of_record;
use crate::clock::{from_millis, to_millis};
use crate::store::{AuditStore, Error, Part, PublicPart, RunId, StoredBatch};
use crate::tenant::InstallationKey;

/// Which records [`records`] returns. The default is all of them.
///
/// The time narrows the runs that are read. The other conditions are compared with each record that
/// was read, so they save nothing.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The first moment.
    pub from: Option<SystemTime>,
    /// The moment after the last.
    pub until: Option<SystemTime>,
    /// The tenant.
    pub tenant: Option<InstallationKey>,
    /// The part of the app that acted.
    pub actor: Option<String>,
    /// The event: `open`, `write`, `remove`, `clear`, `key`, or what the log says about itself.
    pub event: Option<String>,
}

/// A record that was read. [`to_line`](Self::to_line) exports it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogRecord {
    /// The run.
    pub run: RunId,
    /// The public part.
    pub public: PublicPart,
    /// The sealed part. `None` if the record has none, if its tenant was erased, or if the batch
    /// does not open.
    pub detail: Option<Detail>,
    /// The id of the key that sealed the part, if it was destroyed.
    pub erased: Option<String>,
    /// The sealed part, in the form that is hashed.
    payload: Option<String>,
}

impl LogRecord {
    /// Returns when it happened.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        from_millis(self.public.time)
    }

    /// Returns whether the act was done. Otherwise it failed, or its outcome is unknown.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.public.outcome == DONE
    }

    /// Returns the record as one line of JSON, which verifies offline: `docs/audit.md` says how.
    #[must_use]
    pub fn to_line(&self) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            run: String,
            #[serde(flatten)]
            public: &'a PublicPart,
            hash: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            sealed: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            erased: Option<&'a str>,
        }
        let line = Line {
            run: self.run.to_string(),
            public: &self.public,
            hash: of_record(self.run, &self.public),
            sealed: self.payload.as_deref(),
            erased: self.erased.as_deref(),
        };
        serde_json::to_string(&line).expect("plain fields always serialise")
    }

    fn of(run: RunId, public: PublicPart, part: Option<&Part>) -> Self {
        let text = match part {
            Some(Part::Opened(text)) => std::str::from_utf8(text).ok(),
            _ => None,
        };
        Self {
            run,
            public,
            detail: text.and_then(|text| Detail::parse(text.as_bytes())),
            erased: match part {
                Some(Part::Erased(key)) => Some(key.clone()),
                _ => None,
            },
            payload: text.map(str::to_owned),
        }
    }
}

/// Streams the records of a log, run by run, and in the order of each run.
///
/// It verifies nothing: [`verify`](super::verify()) does.
///
/// # Errors
///
/// [`Error::Unavailable`], if the database does not respond. Then the stream ends.
///
/// # Cancel safety
///
/// You can drop the stream at any point.
pub fn records<'a>(
    store: &'a dyn AuditStore,
    filter: Filter,
) -> impl Stream<Item = Result<LogRecord, Error>> + Send + 'a {
    let begin = Reading {
        store,
        filter,
        runs: None,
        place: 0,
    };
    let pages = stream::try_unfold(begin, |mut reading| async move {
        let page = reading.next().await?;
        Ok::<_, Error>(page.map(|page| (stream::iter(page.into_iter().map(Ok)), reading)))
    });
    pages.try_flatten()
}

struct Reading<'a> {
    store: &'a dyn AuditStore,
    filter: Filter,
    /// The runs that are left; `None` before the registry was read.
    runs: Option<VecDeque<RunId>>,
    place: u64,
}

impl Reading<'_> {
    /// Returns the next records; `None` after the last. There can be none in a page.
    async fn next(&mut self) -> Result<Option<Vec<LogRecord>>, Error> {
        if self.runs.is_none() {
            self.runs = Some(self.runs().await?);
        }
        let run = self.runs.as_ref().and_then(|runs| runs.front().copied());
        let Some(run) = run else {
            return Ok(None);
        };
        let batches = self.store.batches(run, self.place, AT_ONCE).await?;
        let is_last = batches.iter().any(Option::is_none);
        self.place += AT_ONCE;
        if is_last {
            self.runs.as_mut().and_then(VecDeque::pop_front);
            self.place = 0;
        }
        let batches = batches.into_iter().flatten();
        let records = batches.flat_map(|batch| records_of(run, batch));
        Ok(Some(records.filter(|it| self.filter.accepts(it)).collect()))
    }

    async fn runs(&self) -> Result<VecDeque<RunId>, Error> {
        let (from, until) = self.filter.millis();
        let (mut runs, mut next) = (Vec::new(), None);
        loop {
            let page = self.store.registry(next, PAGE).await?;
            let entries = page.runs.into_iter().filter(|(_, entry)| {
                // The entry of a run that has not ended can be old.
                entry.started < until && (!entry.is_ended || entry.touched >= from)
            });
            runs.extend(entries.map(|(run, entry)| (entry.started, run)));
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        runs.sort_unstable();
        Ok(runs.into_iter().map(|(_, run)| run).collect())
    }
}

impl Filter {
    fn millis(&self) -> (u64, u64) {
        let until = self.until.map_or(u64::MAX, to_millis);
        (self.from.map_or(0, to_millis), until)
    }

    fn accepts(&self, record: &LogRecord) -> bool {
        let (from, until) = self.millis();
        let detail = record.detail.as_ref();
        (from..until).contains(&record.public.time)
            && self
                .event
                .as_ref()
                .is_none_or(|it| *it == record.public.event)
            && self
                .tenant
                .is_none_or_eq(detail.and_then(|it| it.tenant.as_ref()))
            && self
                .actor
                .is_none_or_eq(detail.and_then(|it| it.actor.as_ref()))
    }
}

trait IsNoneOrEq<T> {
    fn is_none_or_eq(&self, other: Option<&T>) -> bool;
}

impl<T: PartialEq> IsNoneOrEq<T> for Option<T> {
    fn is_none_or_eq(&self, other: Option<&T>) -> bool {
        self.is_none() || self.as_ref() == other
    }
}

fn records_of(run: RunId, batch: StoredBatch) -> Vec<LogRecord> {
    let StoredBatch { records, parts, .. } = batch;
    let records = records.into_iter().enumerate();
    records
        .map(|(nth, public)| {
            let part = parts.as_ref().and_then(|parts| parts.get(nth));
            LogRecord::of(run, public, part)
        })
        .collect()
}

/// The batches of a page, as many as a store reads at once.
const AT_ONCE: u64 = 12;

/// The entries of a page of the registry.
const PAGE: usize = 500;
