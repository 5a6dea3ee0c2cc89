//! Which processes of the app run, and which data keys each has unwrapped: the slots
//! `process/<id>` of the keyring.
//!
//! The rows are hints. A key is promoted when every running process has it. The rows are sealed, so
//! that who writes the database cannot make a process look ready. They can delete a row.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Keys;
use crate::backend::{self, Backend, Change, Expect, Metadata, Row, Scope, Slot, Version};
use crate::clock::{from_epoch, to_epoch};
use crate::encrypted::KeyringError;
use crate::encrypted::names::slot;
use crate::encrypted::record;
use crate::seal::{self, Context, DataKey, KeyId};

/// A process of the app that has used a data key lately.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct KeyProcess {
    /// The process's id: a random number, new for each store that it opens.
    pub id: String,
    /// When the process fetched a key last.
    pub seen_at: SystemTime,
    /// The data keys that the process has unwrapped.
    pub keys: Vec<KeyId>,
}

#[derive(Deserialize, Serialize)]
struct ProcessFacts {
    at: u64,
    keys: Vec<String>,
}

impl<B: Backend> Keys<B> {
    /// Writes the row of this process, and removes the rows of processes that no longer run.
    pub(super) async fn announce(self: &Arc<Self>, now: SystemTime) -> Result<(), KeyringError> {
        let Some(primary) = self.newest().primary().copied() else {
            return Ok(());
        };
        let key = self.fetch(primary.id, primary.epoch).await?;
        let ids = self.ring.ids(Instant::now());
        let facts = ProcessFacts {
            at: to_epoch(now),
            keys: ids.iter().map(ToString::to_string).collect(),
        };
        let own = process_slot(&self.process);
        let row = self.process_row(&own, (primary.id, &key), &facts);
        let put = Change::Put {
            slot: own,
            row,
            expect: Expect::Any,
        };
        self.backend.commit(&self.partition, &[put]).await?;
        self.forget_dead(now).await
    }

    async fn forget_dead(&self, now: SystemTime) -> Result<(), KeyringError> {
        for (slot, row) in self.process_rows().await? {
            let facts: Option<ProcessFacts> = record::facts(row.metadata.as_str(), PROCESS);
            if facts.is_none_or(|facts| is_alive(from_epoch(facts.at), now)) {
                continue;
            }
            let only = Some(row.version);
            let delete = Change::Delete { slot, only };
            match self.backend.commit(&self.partition, &[delete]).await {
                // The process has just written its row again.
                Ok(()) | Err(backend::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Returns the processes that run. A row that does not open counts as no process.
    pub(in crate::encrypted) async fn processes(
        self: &Arc<Self>,
        now: SystemTime,
    ) -> Result<Vec<KeyProcess>, KeyringError> {
        let mut processes = Vec::new();
        for (slot, row) in self.process_rows().await? {
            let process = self.process(&slot, &row).await;
            processes.extend(process.filter(|it| is_alive(it.seen_at, now)));
        }
        Ok(processes)
    }

    /// Returns the process of this row.
    pub(super) async fn process(self: &Arc<Self>, slot: &Slot, row: &Row) -> Option<KeyProcess> {
        let id = row.sealed.key_id().ok()?;
        let key = self.get(id).await.ok()?;
        let context = self.process_context(slot, &row.version, &row.metadata);
        seal::open(seal::RECORD, &key, &context, row.sealed.as_bytes()).ok()?;
        let facts: ProcessFacts = record::facts(row.metadata.as_str(), PROCESS)?;
        let keys: Option<Vec<_>> = facts.keys.iter().map(|id| KeyId::parse(id)).collect();
        Some(KeyProcess {
            id: slot.as_str().strip_prefix(PREFIX)?.to_owned(),
            seen_at: from_epoch(facts.at),
            keys: keys?,
        })
    }

    fn process_row(&self, slot: &Slot, (id, key): (KeyId, &DataKey), facts: &ProcessFacts) -> Row {
        let version = Version::mint();
        let metadata = Metadata::new(record::metadata(PROCESS, facts));
        let context = self.process_context(slot, &version, &metadata);
        Row {
            sealed: seal::seal(seal::RECORD, id, key, &context, &[]),
            version,
            metadata,
            due: None,
        }
    }

    fn process_context<'a>(
        &'a self,
        slot: &'a Slot,
        version: &'a Version,
        metadata: &'a Metadata,
    ) -> Context<'a> {
        Context {
            app: self.app.as_str(),
            partition: self.partition.as_str(),
            slot: slot.as_str(),
            kind: PROCESS,
            version: version.as_bytes(),
            due: None,
            metadata: metadata.as_str(),
        }
    }

    async fn process_rows(&self) -> Result<Vec<(Slot, Row)>, KeyringError> {
        let scope = Scope::Partition(self.partition.clone());
        let (mut rows, mut from) = (Vec::new(), None);
        loop {
            let page = self.backend.scan(&scope, from, PAGE).await?;
            let found = page.rows.into_iter().map(|(key, row)| (key.slot, row));
            rows.extend(found.filter(|(slot, _)| is_process(slot)));
            from = page.next;
            if from.is_none() {
                return Ok(rows);
            }
        }
    }
}

fn is_alive(seen_at: SystemTime, now: SystemTime) -> bool {
    seen_at + DEAD_AFTER > now
}

/// Returns whether this is the slot of a process.
pub(in crate::encrypted) fn is_process(slot: &Slot) -> bool {
    slot.as_str().starts_with(PREFIX)
}

fn process_slot(id: &str) -> Slot {
    slot(&format!("{PREFIX}{id}"))
}

const PREFIX: &str = "process/";

/// The kind of a process's row.
const PROCESS: &str = "process";

/// A process that has fetched no key for this long has no key in memory any more.
pub(in crate::encrypted) const DEAD_AFTER: Duration = Duration::from_secs(15 * 60);

const PAGE: usize = 1000;
