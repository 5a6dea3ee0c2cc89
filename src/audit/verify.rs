//! Verifies a whole log: each run, and what the runs, the registry and the anchors say of each other.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::check::{Fault, RunCheck};
use super::entry::{END, EXPIRED, EndNote, RunNote, SAW};
use super::head::{SignedHead, VerifyingKey};
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
    /// What is wrong: the first finding of each run. Empty if the log is intact.
    pub findings: Vec<Finding>,
    /// Whether heads from outside the database were compared. If not, nothing shows whether the
    /// whole log was rolled back.
    pub is_anchored: bool,
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
/// It reads the whole log: a batch of up to 64 records is one row.
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
    let mut runs: BTreeSet<_> = registry.keys().copied().collect();
    let mut from = None;
    loop {
        let page = store.runs(from).await?;
        runs.extend(page.runs);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    for run in runs {
        log.run(store, run, registry.get(&run), &options.keys)
            .await?;
    }
    for head in &options.anchor {
        log.anchor(store.app(), head, &options.keys);
    }
    Ok(log.judge())
}

/// Something that says that a run had a record.
struct Claim {
    run: RunId,
    records: u64,
    hash: String,
    is_anchor: bool,
}

/// What is known of a log.
#[derive(Default)]
struct Log {
    report: Report,
    claims: Vec<Claim>,
    /// The runs that other runs say were removed at the end of their retention.
    expired: BTreeSet<RunId>,
    /// The hash after each batch of each run.
    ends: HashMap<RunId, HashMap<u64, String>>,
}

impl Log {
    async fn registry(
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
            for (run, entry) in page.runs {
                self.claims.push(Claim {
                    run,
                    records: entry.records,
                    hash: entry.head.clone(),
                    is_anchor: false,
                });
                registry.insert(run, entry);
            }
            from = page.next;
            if from.is_none() {
                return Ok(registry);
            }
        }
    }

    async fn run(
        &mut self,
        store: &dyn AuditStore,
        run: RunId,
        entry: Option<&RunEntry>,
        keys: &[VerifyingKey],
    ) -> Result<(), Error> {
        let mut check = RunCheck::new(store.app(), run, keys);
        let mut next = 0;
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
                batch.records.iter().for_each(|record| self.note(record));
                let mut rest = window[nth + 1..].to_vec();
                rest.extend_from_slice(&later);
                check.batch(batch, &rest);
                next += 1;
            }
            if window.iter().any(Option::is_none) {
                break;
            }
            window = later;
        }
        let places = store.places(run).await?;
        if places.last().is_some_and(|last| *last > next) {
            check.missing_batch();
        }
        check.end();
        if places.is_empty() && entry.is_none_or(|entry| entry.records == 0) {
            return Ok(());
        }
        if let Some((record, fault)) = check.fault {
            self.find(run, record, fault);
        }
        let is_listed = entry.is_some() || self.is_found(run);
        if !is_listed {
            self.find(run, 0, Fault::RegistryDropped);
        }
        if !places.is_empty() {
            self.ends.insert(run, std::mem::take(&mut check.ends));
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
                anchored: 0,
            });
        }
        Ok(())
    }

    /// Notes what a record says about other runs.
    fn note(&mut self, record: &PublicPart) {
        let run = |text: &str| RunId::parse(text);
        match record.event.as_str() {
            SAW => {
                if let Ok(note) = serde_json::from_str::<RunNote>(&record.note)
                    && let Some(run) = run(&note.run)
                {
                    self.claims.push(Claim {
                        run,
                        records: note.records,
                        hash: note.hash,
                        is_anchor: false,
                    });
                }
            }
            EXPIRED => {
                if let Ok(note) = serde_json::from_str::<RunNote>(&record.note) {
                    self.expired.extend(run(&note.run));
                }
            }
            END => {
                if let Ok(note) = serde_json::from_str::<EndNote>(&record.note)
                    && let Some(run) = run(&note.successor)
                {
                    self.claims.push(Claim {
                        run,
                        records: 1,
                        hash: String::new(),
                        is_anchor: false,
                    });
                }
            }
            _ => {}
        }
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
            is_anchor: true,
        });
    }

    /// Compares what was said of each run with the run.
    fn judge(mut self) -> Report {
        let mut claims = std::mem::take(&mut self.claims);
        // The claim that names the first missing record comes first.
        claims.sort_by_key(|claim| (claim.run, claim.records));
        for claim in claims {
            if claim.records == 0 || self.expired.contains(&claim.run) {
                continue;
            }
            let runs = &mut self.report.runs;
            let Some(report) = runs.iter_mut().find(|report| report.run == claim.run) else {
                if !self.is_found(claim.run) {
                    self.find(claim.run, 0, Fault::RunDropped);
                }
                continue;
            };
            let records = report.records;
            let ends = &self.ends[&claim.run];
            let fault = if claim.records > records {
                let is_anchor = claim.is_anchor;
                let missing = if is_anchor {
                    Fault::RolledBack
                } else {
                    Fault::Truncated
                };
                Some((records, missing))
            } else if claim.hash.is_empty() || ends.get(&claim.records) == Some(&claim.hash) {
                if claim.is_anchor {
                    report.anchored = report.anchored.max(claim.records);
                }
                None
            } else {
                Some((claim.records - 1, Fault::Rewritten))
            };
            // If a record is wrong, what comes after it is not counted.
            let is_explained = matches!(
                self.first_fault(claim.run),
                Some(fault) if !matches!(fault, Fault::RegistryDropped | Fault::Truncated)
            );
            if let Some((record, fault)) = fault
                && !is_explained
            {
                self.find(claim.run, record, fault);
            }
        }
        self.report
    }

    fn first_fault(&self, run: RunId) -> Option<Fault> {
        let findings = self.report.findings.iter();
        findings.rev().find(|it| it.run == run).map(|it| it.fault)
    }

    fn is_found(&self, run: RunId) -> bool {
        self.first_fault(run).is_some()
    }

    fn find(&mut self, run: RunId, record: u64, fault: Fault) {
        let finding = Finding { run, record, fault };
        if !self.report.findings.contains(&finding) {
            self.report.findings.push(finding);
        }
    }
}

/// The batches that are read at once. They take some hundreds of kilobytes.
const AT_ONCE: u64 = 12;

/// The entries of a page of the registry.
const PAGE: usize = 500;
