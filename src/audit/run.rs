//! A run that is written: gives each entry its place, and chains it to the one before.

use super::entry::{Content, Detail, Entry};
use super::hash::{genesis, of_payload, of_record};
use crate::random;
use crate::store::{Batch, PublicPart, RunEntry, RunId};

/// The state of a run after its last batch.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) id: RunId,
    /// When it began, in milliseconds since 1970.
    pub(super) started: u64,
    pub(super) records: u64,
    pub(super) head: String,
    batches: u64,
    /// How often all that waited was written.
    pub(super) flushes: u64,
}

impl Run {
    pub(super) fn begin(app: &str, now: u64) -> Self {
        let id = RunId::from_bytes(random::bytes());
        Self {
            head: genesis(app, id),
            id,
            started: now,
            records: 0,
            batches: 0,
            flushes: 0,
        }
    }

    /// Returns the batch of these entries, and the run after it.
    pub(super) fn batch(&self, entries: &[Entry]) -> (Batch, Self) {
        let mut next = self.clone();
        let (mut records, mut plain) = (Vec::new(), Vec::new());
        for entry in entries {
            let (event, outcome) = (entry.event, entry.outcome());
            let mut record =
                PublicPart::new(next.records, entry.time, event, outcome, next.head.clone());
            record.count = entry.count;
            let part = match &entry.content {
                Content::Note(note) => {
                    record.note.clone_from(note);
                    None
                }
                Content::Act(act, who) => Some(Detail::of(act, who).plain()),
            };
            if let Some(part) = &part {
                record.payload = of_payload(&part.text);
            }
            next.head = of_record(next.id, &record);
            next.records += 1;
            records.push(record);
            plain.push(part);
        }
        let place = next.batches;
        next.batches += 1;
        let batch = Batch {
            place,
            records,
            plain,
        };
        (batch, next)
    }

    /// Returns the entry of the registry.
    pub(super) fn entry(&self, now: u64, is_ended: bool) -> RunEntry {
        RunEntry {
            started: self.started,
            touched: now,
            is_ended,
            records: self.records,
            batches: self.batches,
            head: self.head.clone(),
            flushes: self.flushes,
            ..RunEntry::default()
        }
    }
}

/// The largest number of records of a batch. With the largest texts of each record, they take less
/// than 64 KiB, which every backend stores.
pub(super) const AT_ONCE: usize = 64;
