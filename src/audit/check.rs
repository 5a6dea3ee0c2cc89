//! Checks the records of one run in their order, and names the first one that is wrong.

use std::collections::HashMap;

use super::entry::{END, HEAD, head_in};
use super::hash::{genesis, of_payload, of_record};
use super::head::{HeadError, VerifyingKey};
use super::writer::MOST_UNSIGNED;
use crate::store::{Part, PublicPart, RunId, StoredBatch};

/// What is wrong with a log, at one record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// The record was changed.
    Edited,
    /// The record is missing, and later ones are there.
    Deleted,
    /// The record is not at its place.
    Reordered,
    /// The record is there twice.
    Duplicated,
    /// The records from this one on are missing. Something in the database proves that they existed.
    Truncated,
    /// The records from this one on are missing. An anchor proves that they existed: the log was
    /// rolled back.
    RolledBack,
    /// A record up to this one was changed, and all hashes after it too. A signed head proves it.
    Rewritten,
    /// The sealed parts of the batch that begins with this record do not open. Its public parts are
    /// intact.
    Unreadable,
    /// The whole run is missing. Something proves that it existed.
    RunDropped,
    /// The run has no entry in the registry.
    RegistryDropped,
    /// The run's entry in the registry does not open.
    RegistryEdited,
    /// The signed head in this record is not valid.
    Head(HeadError),
    /// More than a thousand records before this one have no signed head, although a key was to sign
    /// them.
    Unsigned,
    /// The key of the sealed part is missing, and no record says that the tenant was erased.
    KeyMissing,
}

/// The check of one run.
pub(super) struct RunCheck<'a> {
    run: RunId,
    keys: &'a [VerifyingKey],
    /// The hash that the next record must name.
    head: String,
    /// The number of records so far.
    pub(super) records: u64,
    /// The record before, if it names a wrong hash, and the right one.
    broken: Option<(PublicPart, String)>,
    pub(super) fault: Option<(u64, Fault)>,
    /// The last batch, if it does not open: its first and its last record.
    closed: Option<(u64, u64)>,
    /// The hash after each batch, by the number of records.
    pub(super) ends: HashMap<u64, String>,
    pub(super) is_ended: bool,
    pub(super) erased: u64,
    /// The keys that are missing: the place and the time of the first record that needs each.
    pub(super) keyless: HashMap<String, (u64, u64)>,
    pub(super) gaps: u64,
    /// The number of records at the last valid head, and its key's epoch.
    signed: u64,
    epoch: u64,
}

impl<'a> RunCheck<'a> {
    pub(super) fn new(app: &str, run: RunId, keys: &'a [VerifyingKey]) -> Self {
        let head = genesis(app, run);
        Self {
            run,
            keys,
            ends: HashMap::from([(0, head.clone())]),
            head,
            records: 0,
            broken: None,
            fault: None,
            closed: None,
            is_ended: false,
            erased: 0,
            keyless: HashMap::new(),
            gaps: 0,
            signed: 0,
            epoch: 0,
        }
    }

    /// Checks the next batch. `later` are batches that follow it.
    pub(super) fn batch(&mut self, batch: &StoredBatch, later: &[&Option<StoredBatch>]) {
        if self.fault.is_some() {
            return;
        }
        let first = self.records;
        for (nth, record) in batch.records.iter().enumerate() {
            let rest = &batch.records[nth..];
            let later = later.iter().copied().flatten().flat_map(|it| &it.records);
            self.record(record, rest.iter().chain(later));
            if let Some(parts) = &batch.parts {
                self.part(record, &parts[nth]);
            }
            if self.fault.is_some() {
                return;
            }
        }
        self.close(first, batch);
    }

    /// Notes that a batch is missing, and that later ones are there.
    pub(super) fn missing_batch(&mut self) {
        self.settle();
        self.fail(self.records, Fault::Deleted);
    }

    /// Ends the check.
    pub(super) fn end(&mut self) {
        self.settle();
        // No later record vouches for the last one. Only the seal does.
        if let Some((_, last)) = self.closed.take() {
            self.fail(last, Fault::Edited);
        }
    }

    fn close(&mut self, first: u64, batch: &StoredBatch) {
        if batch.parts.is_none() {
            self.closed = Some((first, self.records.saturating_sub(1).max(first)));
            if batch.records.is_empty() {
                self.fail(first, Fault::Edited);
            }
        }
        self.ends.insert(self.records, self.head.clone());
    }

    fn record<'r>(&mut self, record: &PublicPart, mut rest: impl Iterator<Item = &'r PublicPart>) {
        let expected = self.records;
        let is_linked = record.previous == self.head;
        if let Some((before, previous)) = self.broken.take() {
            // If the record before only named a wrong hash, it alone was changed. Otherwise the one
            // before it was changed, and possibly more.
            let place = before.sequence;
            let repaired = PublicPart { previous, ..before };
            let is_alone = !is_linked && of_record(self.run, &repaired) == record.previous;
            let edited = if is_alone { place } else { place - 1 };
            return self.fail(edited, Fault::Edited);
        }
        if record.sequence != expected {
            let fault = match record.sequence {
                // The record names the one before it, so it is at its place.
                _ if is_linked => Fault::Edited,
                sequence if sequence < expected => {
                    return self.fail(sequence, Fault::Duplicated);
                }
                _ if rest.any(|other| other.sequence == expected) => Fault::Reordered,
                _ => Fault::Deleted,
            };
            return self.fail(expected, fault);
        }
        if is_linked {
            // All records of the last batch are intact, so its sealed parts are not.
            if let Some((first, _)) = self.closed.take() {
                return self.fail(first, Fault::Unreadable);
            }
        } else if expected == 0 {
            return self.fail(0, Fault::Edited);
        } else {
            self.broken = Some((record.clone(), self.head.clone()));
        }
        self.claims(record);
        self.head = of_record(self.run, record);
        self.records += 1;
    }

    /// Checks what the record says about the log.
    fn claims(&mut self, record: &PublicPart) {
        self.is_ended |= record.event == END;
        if record.event == super::entry::GAP {
            self.gaps += record.count;
        }
        if self.keys.is_empty() || self.broken.is_some() {
            return;
        }
        if record.event == HEAD {
            self.signed_head(record);
        } else if self.records - self.signed > MOST_UNSIGNED as u64
            && self.keys.iter().any(|key| key.covers(record.time))
        {
            self.fail(self.records, Fault::Unsigned);
        }
    }

    fn signed_head(&mut self, record: &PublicPart) {
        let sequence = self.records;
        let Some(head) = head_in(&record.note) else {
            return self.fail(sequence, Fault::Head(HeadError::Form));
        };
        if let Err(error) = head.verify(self.keys) {
            return self.fail(sequence, Fault::Head(error));
        }
        let is_older = head.epoch < self.epoch;
        if is_older {
            return self.fail(sequence, Fault::Head(HeadError::Period));
        }
        // The hash covers the run and the number of records.
        if head.hash != self.head {
            return self.fail(sequence.saturating_sub(1), Fault::Rewritten);
        }
        (self.signed, self.epoch) = (sequence, head.epoch);
    }

    fn part(&mut self, record: &PublicPart, part: &Part) {
        let is_right = match part {
            Part::Absent => record.payload.is_empty(),
            Part::Erased(key) => {
                self.erased += 1;
                let first = (record.sequence, record.time);
                self.keyless.entry(key.clone()).or_insert(first);
                !record.payload.is_empty()
            }
            Part::Opened(text) => of_payload(text) == record.payload,
        };
        if !is_right && self.broken.is_none() {
            self.fail(record.sequence, Fault::Edited);
        }
    }

    /// Decides on a record that names a wrong hash, and which no other record follows.
    fn settle(&mut self) {
        if let Some((last, _)) = self.broken.take() {
            let last = last.sequence;
            // If only the last batch does not open, its own record was changed.
            let is_alone = matches!(self.closed, Some((first, _)) if first == last);
            let edited = if is_alone { last } else { last - 1 };
            self.fail(edited, Fault::Edited);
        }
    }

    fn fail(&mut self, sequence: u64, fault: Fault) {
        if self.fault.is_none() {
            self.fault = Some((sequence, fault));
        }
    }
}
