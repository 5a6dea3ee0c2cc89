//! Stores the audit log as rows: one row for each batch, in a partition for each run.
//!
//! The public parts are the row's metadata. The sealed parts are its plaintext: each is sealed under
//! its tenant's key, and all of them once more with the row. So a row that was changed does not
//! open, and a tenant's parts cannot be opened after the tenant's key was destroyed.

use std::collections::HashSet;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::EncryptedStore;
use super::audit_keys::Opened;
use super::driver::{Opening, Step};
use super::names::{AUDIT, AUDIT_ENTRY, audit_batch, audit_entry, batch_of, run_of};
use super::record::{self, Draft, Record};
use crate::backend::{Backend, Cursor, Key, Partition, Row, Scope};
use crate::seal::{self, Context, KeyId, Sealed};
use crate::store::{
    AuditStore, Batch, Error, FoundRuns, ListCursor, Part, Plain, PublicPart, Registry, RunEntry,
    RunId, StoredBatch,
};
use crate::tenant::InstallationKey;

/// The facts of a batch, in plain text.
#[derive(Deserialize, Serialize)]
struct BatchFacts {
    place: u64,
    records: Vec<PublicPart>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Backend> AuditStore for EncryptedStore<B> {
    fn app(&self) -> &str {
        self.driver.app.as_str()
    }

    async fn append(&self, run: RunId, batch: &Batch) -> Result<(), Error> {
        let partition = self.driver.app.audit_run(run);
        let facts = BatchFacts {
            place: batch.place,
            records: batch.records.clone(),
        };
        let draft = Draft {
            plaintext: self.sealed_parts(&partition, batch).await?,
            ..Draft::new(AUDIT, &facts)
        };
        let slot = audit_batch(batch.place).slot;
        let inserted = self.driver.insert(&partition, slot, draft).await;
        if !matches!(inserted, Err(Error::Conflict)) {
            return inserted;
        }
        let stored = self.batches(run, batch.place, 1).await?;
        let stored = stored.into_iter().flatten().next();
        if stored.is_some_and(|it| it.parts.is_some() && it.records == batch.records) {
            return Ok(());
        }
        inserted
    }

    async fn batches(
        &self,
        run: RunId,
        from: u64,
        count: u64,
    ) -> Result<Vec<Option<StoredBatch>>, Error> {
        let partition = self.driver.app.audit_run(run);
        let mut opened = Opened::new();
        let mut batches = Vec::new();
        for (number, row) in self.audit_rows(&partition, from, count).await? {
            batches.push(match row {
                Read::Absent => None,
                Read::Malformed => Some(StoredBatch::new(number, Vec::new(), None)),
                Read::Row(row) => Some(self.batch(&partition, number, &row, &mut opened).await?),
            });
        }
        Ok(batches)
    }

    async fn register(&self, run: RunId, entry: &RunEntry) -> Result<(), Error> {
        let partition = self.driver.app.audit_registry();
        let place = audit_entry(run);
        let decide = |_: &[Option<Record>], _: &[Option<Row>]| {
            let put = Step::Put(place.slot.clone(), Draft::new(AUDIT_ENTRY, entry));
            Ok((vec![put], ()))
        };
        let places = [place.clone()];
        self.driver
            .update_with(Opening::Only(&[]), &partition, &places, decide)
            .await?;
        Ok(())
    }

    async fn registry(&self, from: Option<ListCursor>, limit: usize) -> Result<Registry, Error> {
        let partition = self.driver.app.audit_registry();
        let scope = Scope::Partition(partition.clone());
        let from = from.map(Cursor::from);
        let page = self.driver.scan(&scope, from, limit).await?;
        let mut registry = Registry {
            unreadable: page.malformed,
            next: page.next.map(ListCursor::from),
            ..Registry::default()
        };
        for (key, row) in page.rows {
            let opened = self
                .driver
                .open(&partition, &key.slot, AUDIT_ENTRY, &row)
                .await;
            let is_opened = match opened {
                Ok(_) => true,
                Err(Error::Unreadable(_)) => false,
                Err(error) => return Err(error),
            };
            let entry = record::facts(row.metadata.as_str(), AUDIT_ENTRY);
            match (RunId::parse(key.slot.as_str()), entry) {
                (Some(run), Some(entry)) if is_opened => registry.runs.push((run, entry)),
                _ => registry.unreadable.push(key.slot.to_string()),
            }
        }
        Ok(registry)
    }

    async fn runs(&self, from: Option<ListCursor>) -> Result<FoundRuns, Error> {
        let scope = self.driver.app.audit_runs();
        let page = self
            .driver
            .scan(&scope, from.map(Cursor::from), PAGE)
            .await?;
        let malformed = page.malformed.iter().filter_map(|text| Key::parse(text));
        let keys = page.rows.into_iter().map(|(key, _)| key).chain(malformed);
        let mut found = FoundRuns {
            next: page.next.map(ListCursor::from),
            ..FoundRuns::default()
        };
        for key in keys {
            if let (Some(run), Some(place)) = (run_of(&key.partition), batch_of(&key.slot)) {
                let last = found.runs.entry(run).or_default();
                *last = place.max(*last);
            }
        }
        Ok(found)
    }

    async fn remove(&self, run: RunId) -> Result<(), Error> {
        let app = &self.driver.app;
        let clear = |_: &[Option<Record>]| Ok((vec![Step::Clear], ()));
        self.driver.update(&app.audit_run(run), &[], clear).await?;
        let slot = audit_entry(run).slot;
        let delete = |_: &[Option<Record>]| Ok((vec![Step::Delete(slot.clone())], ()));
        self.driver
            .update(&app.audit_registry(), &[], delete)
            .await?;
        Ok(())
    }

    async fn key_of(&self, tenant: &InstallationKey) -> Result<Option<String>, Error> {
        let named = self.named_audit_key(tenant).await?;
        Ok(named.map(|id| id.to_string()))
    }

    async fn erase(&self, tenant: &InstallationKey, key: &str) -> Result<bool, Error> {
        match KeyId::parse(key) {
            Some(id) => self.destroy_audit_key(tenant, id).await,
            None => Ok(false),
        }
    }
}

/// What is at a place of a run.
enum Read {
    Absent,
    Malformed,
    Row(Box<Row>),
}

impl<B: Backend> EncryptedStore<B> {
    /// Reads rows, with the numbers of their places. If one of them cannot be parsed, reads them one
    /// by one.
    async fn audit_rows(
        &self,
        partition: &Partition,
        from: u64,
        count: u64,
    ) -> Result<Vec<(u64, Read)>, Error> {
        let numbers: Vec<_> = (from..from.saturating_add(count)).collect();
        let places: Vec<_> = numbers.iter().map(|number| audit_batch(*number)).collect();
        let read = |row: Option<Row>| row.map_or(Read::Absent, |row| Read::Row(Box::new(row)));
        match self.driver.read_rows(partition, &places).await {
            Ok(rows) => {
                return Ok(numbers
                    .into_iter()
                    .zip(rows.into_iter().map(read))
                    .collect());
            }
            Err(Error::Unreadable(_)) => {}
            Err(error) => return Err(error),
        }
        let mut rows = Vec::new();
        for (number, place) in numbers.into_iter().zip(places) {
            let row = match self.driver.read_rows(partition, &[place]).await {
                Ok(mut row) => read(row.pop().flatten()),
                Err(Error::Unreadable(_)) => Read::Malformed,
                Err(error) => return Err(error),
            };
            rows.push((number, row));
        }
        Ok(rows)
    }

    async fn batch(
        &self,
        partition: &Partition,
        number: u64,
        row: &Row,
        opened: &mut Opened,
    ) -> Result<StoredBatch, Error> {
        let place = audit_batch(number);
        let facts: Option<BatchFacts> = record::facts_in_the_clear(row.metadata.as_str(), AUDIT);
        let Some(facts) = facts else {
            return Ok(StoredBatch::new(number, Vec::new(), None));
        };
        let plaintext = self.driver.open(partition, &place.slot, AUDIT, row).await;
        let parts = match plaintext {
            Ok(plaintext) => self.parts(partition, number, &plaintext, opened).await?,
            Err(Error::Unreadable(_)) => None,
            Err(error) => return Err(error),
        };
        let parts = parts.filter(|parts| parts.len() == facts.records.len());
        Ok(StoredBatch::new(facts.place, facts.records, parts))
    }

    /// Seals each part under its tenant's key, and puts them one after the other.
    async fn sealed_parts(
        &self,
        partition: &Partition,
        batch: &Batch,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let parts = batch.plain.iter().flatten();
        let tenants: HashSet<_> = parts.filter_map(|part| part.tenant.clone()).collect();
        self.fetch_audit_keys(tenants.into_iter().collect()).await?;
        let mut all = Zeroizing::new(Vec::new());
        for (nth, part) in batch.plain.iter().enumerate() {
            match part {
                None => push(&mut all, ABSENT, &[]),
                Some(Plain { tenant: None, text }) => push(&mut all, IN_ROW, text),
                Some(Plain {
                    tenant: Some(tenant),
                    text,
                }) => {
                    let (id, key) = self.audit_key_of(tenant).await?;
                    let (slot, nth) = (audit_batch(batch.place).slot, nth.to_be_bytes());
                    let context = self.part_context(partition, slot.as_str(), &nth);
                    let sealed = seal::seal(PART, id, &key, &context, text);
                    push(&mut all, IN_KEY, sealed.as_bytes());
                }
            }
        }
        Ok(all)
    }

    async fn parts(
        &self,
        partition: &Partition,
        number: u64,
        mut plaintext: &[u8],
        opened: &mut Opened,
    ) -> Result<Option<Vec<Part>>, Error> {
        let slot = audit_batch(number).slot;
        let mut parts = Vec::new();
        while !plaintext.is_empty() {
            let Some((kind, bytes, rest)) = pop(plaintext) else {
                return Ok(None);
            };
            plaintext = rest;
            let nth = parts.len().to_be_bytes();
            parts.push(match kind {
                ABSENT => Part::Absent,
                IN_ROW => Part::Opened(Zeroizing::new(bytes.to_vec())),
                IN_KEY => {
                    let sealed = Sealed::from_stored(bytes);
                    let Ok(id) = sealed.key_id() else {
                        return Ok(None);
                    };
                    let Some(key) = self.audit_key_for_opening(id, opened).await? else {
                        parts.push(Part::Erased(id.to_string()));
                        continue;
                    };
                    let context = self.part_context(partition, slot.as_str(), &nth);
                    match seal::open(PART, &key, &context, bytes) {
                        Ok(text) => Part::Opened(text),
                        Err(_) => return Ok(None),
                    }
                }
                _ => return Ok(None),
            });
        }
        Ok(Some(parts))
    }

    fn part_context<'a>(
        &'a self,
        partition: &'a Partition,
        slot: &'a str,
        nth: &'a [u8],
    ) -> Context<'a> {
        Context {
            app: self.driver.app.as_str(),
            partition: partition.as_str(),
            slot,
            kind: AUDIT,
            version: nth,
            due: None,
            metadata: "",
        }
    }
}

fn push(all: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("a part is far below 4 GiB");
    all.push(kind);
    all.extend_from_slice(&length.to_be_bytes());
    all.extend_from_slice(bytes);
}

fn pop(all: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (kind, rest) = all.split_first()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (bytes, rest) = rest.split_at_checked(length)?;
    Some((*kind, bytes, rest))
}

/// The purpose of a sealed part. Nothing else opens as one.
const PART: &[u8] = b"slack-installs audit part v1";

/// How a part is stored: not at all, sealed with its row, or also sealed under its tenant's key.
const ABSENT: u8 = 0;
const IN_ROW: u8 = 1;
const IN_KEY: u8 = 2;

/// The rows of a page. A batch has some 30 kilobytes.
const PAGE: usize = 100;
