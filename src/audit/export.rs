//! An exported log, which is verified without its database.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Deserialize;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::store::{
    AuditStore, Batch, Error, FoundRuns, ListCursor, Part, PublicPart, Registry, RunEntry, RunId,
    StoredBatch,
};
use crate::tenant::{ClientId, InstallationKey};

/// A log that was exported as lines ([`LogRecord::to_line`](super::LogRecord::to_line)). Pass it to
/// [`verify`](super::verify()) or [`records`](super::records), which need no database and no key
/// then.
///
/// An export has no registry. So a run that is missing is found only if another run or an anchor
/// names it.
#[derive(Clone, Debug)]
pub struct ExportedLog {
    app: ClientId,
    runs: BTreeMap<RunId, Vec<StoredBatch>>,
}

/// A line of an export that cannot be read.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("line {line} is not a record of an exported audit log")]
pub struct LineError {
    /// The number of the line, from 1.
    pub line: usize,
}

#[derive(Deserialize)]
struct Line {
    run: String,
    #[serde(flatten)]
    public: PublicPart,
    sealed: Option<String>,
    erased: Option<String>,
}

impl ExportedLog {
    /// Reads the lines of an export of this app's log. The hashes in it are not used: they are
    /// computed again.
    ///
    /// # Errors
    ///
    /// [`LineError`], if a line has another form.
    pub fn read<'a>(
        app: ClientId,
        lines: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, LineError> {
        let mut runs: BTreeMap<RunId, Vec<StoredBatch>> = BTreeMap::new();
        for (nth, text) in lines.into_iter().enumerate() {
            let error = LineError { line: nth + 1 };
            let line: Line = serde_json::from_str(text).map_err(|_| error)?;
            let run = RunId::parse(&line.run).ok_or(error)?;
            let part = match (line.sealed, line.erased) {
                (Some(text), None) => Some(Part::Opened(Zeroizing::new(text.into_bytes()))),
                (None, Some(key)) => Some(Part::Erased(key)),
                (None, None) if line.public.payload.is_empty() => Some(Part::Absent),
                (None, None) => None,
                (Some(_), Some(_)) => return Err(error),
            };
            let batches = runs.entry(run).or_default();
            let place = u64::try_from(batches.len()).expect("a count");
            let parts = part.map(|part| vec![part]);
            batches.push(StoredBatch::new(place, vec![line.public], parts));
        }
        Ok(Self { app, runs })
    }

    fn of(&self, run: RunId) -> &[StoredBatch] {
        self.runs.get(&run).map(Vec::as_slice).unwrap_or_default()
    }
}

fn read_only<T>() -> Result<T, Error> {
    Err(Error::Unavailable("an exported log is not changed".into()))
}

#[async_trait]
impl AuditStore for ExportedLog {
    fn app(&self) -> &str {
        self.app.as_str()
    }

    async fn append(&self, _: RunId, _: &Batch) -> Result<(), Error> {
        read_only()
    }

    async fn batches(
        &self,
        run: RunId,
        from: u64,
        count: u64,
    ) -> Result<Vec<Option<StoredBatch>>, Error> {
        let batch = |place| self.of(run).get(usize::try_from(place).ok()?).cloned();
        Ok((from..from.saturating_add(count)).map(batch).collect())
    }

    async fn register(&self, _: RunId, _: &RunEntry) -> Result<(), Error> {
        read_only()
    }

    /// Returns an entry for each run, which says nothing.
    async fn registry(&self, _: Option<ListCursor>, _: usize) -> Result<Registry, Error> {
        let runs = self.runs.keys().map(|run| (*run, RunEntry::default()));
        Ok(Registry {
            runs: runs.collect(),
            ..Registry::default()
        })
    }

    async fn runs(&self, _: Option<ListCursor>) -> Result<FoundRuns, Error> {
        let last = |batches: &[StoredBatch]| batches.last().map(|batch| batch.place);
        let runs = self.runs.iter();
        let runs = runs.filter_map(|(run, batches)| Some((*run, last(batches)?)));
        Ok(FoundRuns {
            runs: runs.collect(),
            next: None,
        })
    }

    async fn remove(&self, _: RunId) -> Result<(), Error> {
        read_only()
    }

    async fn key_of(&self, _: &InstallationKey) -> Result<Option<String>, Error> {
        Ok(None)
    }

    async fn erase(&self, _: &InstallationKey, _: &str) -> Result<bool, Error> {
        read_only()
    }
}
