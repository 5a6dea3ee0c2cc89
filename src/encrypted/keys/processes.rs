//! Which processes of the app run, and which data keys each has unwrapped: the slots
//! `process/<id>` of the keyring.
//!
//! A key is promoted when every running process has it. The rows are sealed, so nobody without a
//! data key can write one. A row that does not open counts as a process without keys, so it delays
//! the promotion. Who writes the database can still delete a row. Then a key may be promoted that
//! the process cannot unwrap: it fails until it can, and overwrites nothing.

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
use crate::store;

/// A process of the app that has used a data key lately.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct KeyProcess {
    /// The process's id: a random number, new for each store that it opens.
    pub id: String,
    /// When the process fetched a key last, by its own clock.
    pub seen_at: SystemTime,
    /// The data keys that the process has in memory, unwrapped. Empty if its row does not open.
    pub keys: Vec<KeyId>,
}

#[derive(Deserialize, Serialize)]
struct ProcessFacts {
    at: u64,
    keys: Vec<String>,
}

impl ProcessFacts {
    /// Returns the keys that the process has unwrapped.
    fn unwrapped(&self) -> Option<Vec<KeyId>> {
        self.keys.iter().map(|id| KeyId::parse(id)).collect()
    }
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

    /// Returns the processes that run.
    pub(in crate::encrypted) async fn processes(
        self: &Arc<Self>,
        now: SystemTime,
    ) -> Result<Vec<KeyProcess>, KeyringError> {
        let mut processes = Vec::new();
        for (slot, row) in self.process_rows().await? {
            let facts: Option<ProcessFacts> = record::facts(row.metadata.as_str(), PROCESS);
            let seen_at = facts.as_ref().map_or(now, |facts| from_epoch(facts.at));
            if !is_alive(seen_at, now) {
                continue;
            }
            let is_written = self.has_written(&slot, &row).await?;
            let keys = facts
                .filter(|_| is_written)
                .and_then(|facts| facts.unwrapped());
            let keys = keys.unwrap_or_default();
            let id = slot.as_str().trim_start_matches(PREFIX).to_owned();
            processes.push(KeyProcess { id, seen_at, keys });
        }
        Ok(processes)
    }

    /// Returns whether a process of this app wrote this row, in this place.
    async fn has_written(self: &Arc<Self>, slot: &Slot, row: &Row) -> Result<bool, KeyringError> {
        let Ok(id) = row.sealed.key_id() else {
            return Ok(false);
        };
        let key = match self.get(id).await {
            Ok(key) => key,
            Err(store::Error::Unavailable(source)) => {
                return Err(backend::Error::Unavailable(source).into());
            }
            // The row is planted, or this process cannot unwrap its key.
            Err(_) => return Ok(false),
        };
        let context = self.process_context(slot, &row.version, &row.metadata);
        let opened = seal::open(seal::RECORD, &key, &context, row.sealed.as_bytes());
        Ok(row.due.is_none() && opened.is_ok())
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
