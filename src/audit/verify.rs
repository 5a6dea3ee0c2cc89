//! Verifies a whole log: each run, and what the runs, the registry and the anchors say of each other.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::SystemTime;

use super::check::{Fault, RunCheck};
use super::entry::{END, ERASED, EXPIRED, EndNote, ErasedNote, ExpiredNote, RunNote, SAW};
use super::head::{SignedHead, VerifyingKey};
use super::writer::{LONGEST_RUN, to_count};
use crate::clock::from_millis;
use crate::store::{AuditStore, Error, PublicPart, RunEntry, RunId, StoredBatch};

/// What [`verify`] compares the log with.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// The keys that may sign heads, each with its period. Without keys, no signature is checked.
    pub keys: Vec<VerifyingKey>,
    /// The heads that a sink kept outside the database.
    pub anchor: Vec<SignedHead>,
}

/// The result of [`verify`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// The runs that are stored.
    pub runs: Vec<RunReport>,
    /// What is wrong: the first wrong record of each run, and a wrong entry of the registry. Empty if
    /// the log is intact.
    pub findings: Vec<Finding>,
    /// Whether heads from outside the database were compared. If not, nothing shows whether the
    /// whole log was rolled back.
    pub is_anchored: bool,
    /// Whether older runs were removed at the end of their retention.
    pub has_expired: bool,
}

/// One run of a log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunReport {
    /// The run.
    pub run: RunId,
    /// The number of its records.
    pub records: u64,
    /// How it ends.
    pub ending: Ending,
    /// The number of records whose tenant was erased.
    pub erased: u64,
    /// The number of events that were not recorded, because the queue was full.
    pub lost: u64,
    /// When the registry last heard of the run; `None` if it has no entry.
    pub touched: Option<SystemTime>,
    /// The number of records of the last head that an anchor has. The records after it are
    /// protected only against someone who cannot sign and cannot open the rows.
    pub anchored: u64,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Ending {
    /// Its process ended it.
    Ended,
    /// It has no last record: it is still written, its process died after the last record, or the
    /// records after it were removed and nothing proves it.
    Open,
}

/// Something that is wrong with a log.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Finding {
    /// The run.
    pub run: RunId,
    /// The place of the first record that is concerned.
    pub record: u64,
    /// What is wrong there.
    pub fault: Fault,
}

/// Verifies the log. It needs the database, and for the sealed parts the key provider.
///
/// It reads the whole log twice, once to find the runs: a batch of up to 64 records is one row.
///
/// # Errors
///
/// [`Error::Unavailable`], if the database or the key provider does not respond. What is wrong with
/// the log is no error, but a [`Finding`].
pub async fn verify(store: &dyn AuditStore, options: &VerifyOptions) -> Result<Report, Error> {
    let mut log = Log {
        report: Report {
            is_anchored: !options.anchor.is_empty(),
            ..Report::default()
        },
        ..Log::default()
    };
    let registry = log.registry(store).await?;
    let mut runs: BTreeMap<_, _> = registry.keys().map(|run| (*run, None)).collect();
    let mut from = None;
    loop {
        let page = store.runs(from).await?;
        for (run, place) in page.runs {
            let last = runs.entry(run).or_default();
            *last = Some(place).max(*last);
        }
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    for (run, last) in &runs {
        let entry = registry.get(run);
        log.run(store, *run, *last, entry, &options.keys).await?;
    }
    let known = runs.into_keys().collect();
    log.begun_meanwhile(store, known, &options.keys).await?;
    for head in &options.anchor {
        log.anchor(store.app(), head, &options.keys);
    }
    Ok(log.judge())
}

/// Returns whether the database has anything of a log of the app. If the registry is empty, searches
/// the database for runs: on DynamoDB and Redis, this reads all rows.
///
/// # Errors
///
/// [`Error::Unavailable`], if the database does not respond.
pub async fn has_log(store: &dyn AuditStore) -> Result<bool, Error> {
    if !store.registry(None, 1).await?.is_empty() {
        return Ok(true);
    }
    let mut from = None;
    loop {
        // A page can be empty although others follow.
        let page = store.runs(from).await?;
        from = page.next;
        if !page.runs.is_empty() || from.is_none() {
            return Ok(!page.runs.is_empty());
        }
    }
}

/// Something that says that a run had a record.
struct Claim {
    run: RunId,
    records: u64,
    /// The hash of the last of these records; empty if the claim does not say it.
    hash: String,
    /// When it was said, in milliseconds since 1970.
    time: u64,
    is_anchor: bool,
}

/// What is known of a log.
#[derive(Default)]
struct Log {
    report: Report,
    claims: Vec<Claim>,
    /// What intact runs say about others.
    said: Said,
    /// The hash after each batch of each run.
    ends: HashMap<RunId, HashMap<u64, String>>,
    /// The keys that are missing in each run: the place and the time of the first record.
    keyless: Vec<(RunId, String, u64, u64)>,
}

/// What a run says about what was removed.
#[derive(Default)]
struct Said {
    /// The runs that were removed at the end of their retention, with their numbers of records.
    expired: HashMap<RunId, u64>,
    /// Runs whose last record is older have no retention left.
    before: u64,
    /// The keys that were destroyed.
    erased: HashSet<String>,
}

impl Said {
    fn note(&mut self, record: &PublicPart) {
        if record.event == EXPIRED
            && let Ok(note) = serde_json::from_str::<ExpiredNote>(&record.note)
            && let Some(run) = RunId::parse(&note.run.run)
        {
            self.expired.insert(run, note.run.records);
            self.before = self.before.max(note.before);
        } else if record.event == ERASED
            && let Ok(note) = serde_json::from_str::<ErasedNote>(&record.note)
        {
            self.erased.insert(note.key);
        }
    }

    fn add(&mut self, other: Self) {
        self.expired.extend(other.expired);
        self.before = self.before.max(other.before);
        self.erased.extend(other.erased);
    }

    /// Returns whether a run that had a record at this time, and all that was said about it, may
    /// have been removed with their retention.
    fn is_past(&self, time: u64) -> bool {
        time.saturating_add(to_count(LONGEST_RUN)) < self.before
    }
}

impl Log {
    async fn registry(
        &mut self,
        store: &dyn AuditStore,
    ) -> Result<BTreeMap<RunId, RunEntry>, Error> {
        let registry = self.entries(store).await?;
        self.claims
            .extend(registry.iter().map(|(run, entry)| Claim {
                run: *run,
                records: entry.records,
                hash: entry.head.clone(),
                time: entry.touched,
                is_anchor: false,
            }));
        Ok(registry)
    }

    async fn entries(
        &mut self,
        store: &dyn AuditStore,
    ) -> Result<BTreeMap<RunId, RunEntry>, Error> {
        let (mut registry, mut from) = (BTreeMap::new(), None);
        loop {
            let page = store.registry(from, PAGE).await?;
            for text in page.unreadable {
                let run = text.split(' ').next_back().and_then(RunId::parse);
                let run = run.unwrap_or_else(|| RunId::from_bytes([0; 16]));
                self.find(run, 0, Fault::RegistryEdited);
            }
            registry.extend(page.runs);
            from = page.next;
            if from.is_none() {
                return Ok(registry);
            }
        }
    }

    /// Reads the runs that began after the runs were listed. The last record of a run names the one
    /// that follows it.
    async fn begun_meanwhile(
        &mut self,
        store: &dyn AuditStore,
        mut known: BTreeSet<RunId>,
        keys: &[VerifyingKey],
    ) -> Result<(), Error> {
        loop {
            let named: BTreeSet<_> = self.claims.iter().map(|claim| claim.run).collect();
            let new: Vec<_> = named.difference(&known).copied().collect();
            if new.is_empty() {
                return Ok(());
            }
            // The entries of the other runs can be newer than the records that were read.
            let registry = self.entries(store).await?;
            for run in new {
                self.run(store, run, None, registry.get(&run), keys).await?;
                known.insert(run);
            }
        }
    }

    /// Reads a run. `last` is the last place that was found when the runs were listed.
    async fn run(
        &mut self,
        store: &dyn AuditStore,
        run: RunId,
        last: Option<u64>,
        entry: Option<&RunEntry>,
        keys: &[VerifyingKey],
    ) -> Result<(), Error> {
        let mut check = RunCheck::new(store.app(), run, keys);
        let (mut next, mut said, mut claims) = (0, Said::default(), Vec::new());
        let mut window: Vec<Option<StoredBatch>> = store.batches(run, 0, AT_ONCE).await?;
        loop {
            let later = if window.iter().all(Option::is_some) {
                let from = next + AT_ONCE;
                store.batches(run, from, AT_ONCE).await?
            } else {
                Vec::new()
            };
            let present = window.iter().map_while(Option::as_ref);
            for (nth, batch) in present.enumerate() {
                let rest: Vec<_> = window[nth + 1..].iter().chain(&later).collect();
                check.batch(batch, &rest);
                if check.fault.is_none() {
                    batch.records.iter().for_each(|record| said.note(record));
                    claims.extend(batch.records.iter().filter_map(claim));
                }
                next += 1;
            }
            if window.iter().any(Option::is_none) {
                break;
            }
            window = later;
        }
        if last.is_some_and(|last| last >= next) {
            check.missing_batch();
        }
        check.end();
        if last.is_none() && next == 0 {
            // If something says that it existed, it is missed later.
            return Ok(());
        }
        self.claims.append(&mut claims);
        match check.fault {
            Some((record, fault)) => self.find(run, record, fault),
            // Only an intact run is believed. The others could hide what was removed.
            None => {
                self.said.add(said);
                let keyless = check.keyless.drain();
                let keyless = keyless.map(|(key, (record, time))| (run, key, record, time));
                self.keyless.extend(keyless);
            }
        }
        if entry.is_none() && !self.has(run, |fault| fault == Fault::RegistryEdited) {
            self.find(run, 0, Fault::RegistryDropped);
        }
        self.ends.insert(run, check.ends);
        let ending = if check.is_ended {
            Ending::Ended
        } else {
            Ending::Open
        };
        self.report.runs.push(RunReport {
            run,
            records: check.records,
            ending,
            erased: check.erased,
            lost: check.gaps,
            touched: entry.map(|entry| from_millis(entry.touched)),
            anchored: 0,
        });
        Ok(())
    }

    fn anchor(&mut self, app: &str, head: &SignedHead, keys: &[VerifyingKey]) {
        let Some(run) = head.run() else {
            return;
        };
        if head.app != app {
            return;
        }
        if !keys.is_empty()
            && let Err(error) = head.verify(keys)
        {
            return self.find(run, head.records, Fault::Head(error));
        }
        self.claims.push(Claim {
            run,
            records: head.records,
            hash: head.hash.clone(),
            time: head.time,
            is_anchor: true,
        });
    }

    /// Compares what was said of each run with the run.
    fn judge(mut self) -> Report {
        let mut claims = std::mem::take(&mut self.claims);
        // What the database proves comes before what only an anchor proves.
        claims.sort_by_key(|claim| (claim.run, claim.is_anchor, claim.records));
        for claim in claims {
            self.judge_claim(&claim);
        }
        self.keyless
            .sort_by_key(|(run, _, record, _)| (*run, *record));
        for (run, key, record, time) in std::mem::take(&mut self.keyless) {
            let is_known = self.said.erased.contains(&key) || self.said.is_past(time);
            if !is_known && !self.has(run, |fault| !is_of_registry(fault)) {
                self.find(run, record, Fault::KeyMissing);
            }
        }
        self.report.has_expired = !self.said.expired.is_empty() || self.said.before > 0;
        // A run that is being removed may be there in part.
        let expired = &self.said.expired;
        self.report.findings.retain(|finding| {
            !expired.contains_key(&finding.run) || finding.fault == Fault::Truncated
        });
        self.report
    }

    fn judge_claim(&mut self, claim: &Claim) {
        let run = claim.run;
        if claim.records == 0 || self.has(run, |fault| !is_of_registry(fault)) {
            // If a record is wrong, what comes after it is not counted.
            return;
        }
        if let Some(records) = self.said.expired.get(&run) {
            if claim.records > *records {
                self.find(run, *records, Fault::Truncated);
            }
            return;
        }
        let runs = &mut self.report.runs;
        let Some(report) = runs.iter_mut().find(|report| report.run == run) else {
            if !self.said.is_past(claim.time) {
                self.find(run, 0, Fault::RunDropped);
            }
            return;
        };
        if claim.records > report.records {
            let record = report.records;
            let fault = if claim.is_anchor {
                Fault::RolledBack
            } else {
                Fault::Truncated
            };
            return self.find(run, record, fault);
        }
        let hash = self.ends[&run].get(&claim.records);
        if !claim.hash.is_empty() && hash != Some(&claim.hash) {
            return self.find(run, claim.records - 1, Fault::Rewritten);
        }
        if claim.is_anchor {
            report.anchored = report.anchored.max(claim.records);
        }
    }

    /// Returns whether a finding of the run has such a fault.
    fn has(&self, run: RunId, is_such: impl Fn(Fault) -> bool) -> bool {
        let findings = self.report.findings.iter();
        findings
            .filter(|it| it.run == run)
            .any(|it| is_such(it.fault))
    }

    fn find(&mut self, run: RunId, record: u64, fault: Fault) {
        let finding = Finding { run, record, fault };
        if !self.report.findings.contains(&finding) {
            self.report.findings.push(finding);
        }
    }
}

/// Returns whether a fault concerns the registry, and says nothing of the run's records.
fn is_of_registry(fault: Fault) -> bool {
    matches!(fault, Fault::RegistryDropped | Fault::RegistryEdited)
}

/// Returns what a record says about another run.
fn claim(record: &PublicPart) -> Option<Claim> {
    let claim = |run: &str, records, hash| {
        Some(Claim {
            run: RunId::parse(run)?,
            records,
            hash,
            time: record.time,
            is_anchor: false,
        })
    };
    match record.event.as_str() {
        SAW => {
            let note: RunNote = serde_json::from_str(&record.note).ok()?;
            claim(&note.run, note.records, note.hash)
        }
        END => {
            let note: EndNote = serde_json::from_str(&record.note).ok()?;
            claim(&note.successor, 1, String::new())
        }
        _ => None,
    }
}

/// The batches that are read at once. They take some hundreds of kilobytes.
const AT_ONCE: u64 = 12;

/// The entries of a page of the registry.
const PAGE: usize = 500;
