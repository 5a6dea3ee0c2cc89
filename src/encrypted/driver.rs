//! Reads rows, decides, commits by version, and starts over if a row changed. All kinds of records
//! use it.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use tracing::field::display;
use zeroize::Zeroizing;

use super::cache::{Cache, CacheOptions};
use super::commit::commit;
use super::keys::Keys;
use super::malformed::MalformedRows;
use super::names::{App, HOLD, Place, tenant_of};
use super::partition_locks::PartitionLocks;
use super::pins;
use super::record::{self, Draft, Record};
use super::reporter::{Acts, Reporter};
use crate::backend::{
    self, Backend, Change, Cursor, Due, Expect, Key, Lane, Metadata, Page, Partition, Row, Scope,
    Slot, Version,
};
use crate::clock::{from_epoch, to_epoch};
use crate::installation::Revision;
use crate::metrics;
use crate::seal::{self, Context, Undecryptable};
use crate::store::Error;

/// One app's records in one backend.
pub(super) struct Driver<B> {
    pub(super) app: App,
    pub(super) backend: Arc<B>,
    pub(super) keys: Arc<Keys<B>>,
    cache: Option<Arc<Cache>>,
    pub(super) witness: Reporter,
    locks: Arc<PartitionLocks>,
    malformed: MalformedRows,
}

/// Which of a decision's rows are opened.
#[derive(Clone, Copy)]
pub(super) enum Opening<'a> {
    /// All rows. A row that does not open is an error.
    All,
    /// The rows that open. Any other row is passed as an absent record, and can be overwritten.
    WhatOpens,
    /// The rows of these kinds. Any other row is passed as an absent record, because the decision
    /// needs no plaintext of it. So it can be removed even if it does not open.
    Only(&'a [&'static str]),
}

/// What [`Driver::reseal`] did with a row.
pub(super) enum RowOutcome {
    /// The row was already sealed under the primary key.
    Current,
    /// Another caller changed the row meanwhile.
    Overtaken,
    /// The row was sealed again.
    Resealed,
}

/// One step of a decision. It fails if a slot that the decision read has changed.
pub(super) enum Step {
    /// Removes every row of the partition.
    Clear,
    /// Removes one row.
    Delete(Slot),
    /// Changes nothing, but fails if the row has changed.
    Check(Slot),
    /// Writes one row.
    Put(Slot, Draft),
}

impl<B: Backend> Driver<B> {
    pub(super) fn new(backend: Arc<B>, keys: Arc<Keys<B>>, app: App) -> Self {
        Self {
            app,
            backend,
            keys,
            cache: None,
            witness: Reporter::default(),
            locks: Arc::default(),
            malformed: MalformedRows::default(),
        }
    }

    /// Returns a driver of the same records with a cache for plain reads.
    pub(super) fn with_cache(&self, options: CacheOptions) -> Self {
        Self {
            cache: Some(Arc::new(Cache::new(options))),
            ..self.again()
        }
    }

    /// Returns a driver of the same records that reports what it does.
    pub(super) fn with_reporter(&self, change: impl FnOnce(Reporter) -> Reporter) -> Self {
        Self {
            witness: change(self.witness.clone()),
            ..self.again()
        }
    }

    fn again(&self) -> Self {
        let (backend, keys) = (Arc::clone(&self.backend), Arc::clone(&self.keys));
        Self {
            cache: self.cache.clone(),
            witness: self.witness.clone(),
            locks: Arc::clone(&self.locks),
            ..Self::new(backend, keys, self.app.clone())
        }
    }

    /// Makes sure that a row could be sealed now. Within a flight, pins the key for it.
    pub(super) async fn ready(&self) -> Result<(), Error> {
        pins::primary(&self.keys).await.map(drop)
    }

    /// Returns the records at these places, opened. The rows may come from the cache, so no
    /// decision may use them.
    pub(super) async fn read(
        &self,
        partition: &Partition,
        places: &[Place],
    ) -> Result<Vec<Option<Record>>, Error> {
        let slots = slots(places);
        let rows = match &self.cache {
            None => self.backend.read(partition, &slots).await?,
            Some(cache) => match cache.begin(partition, &slots) {
                Ok(rows) => {
                    metrics::CACHE_READS.add(["hit"]);
                    rows
                }
                Err(begun) => {
                    metrics::CACHE_READS.add(["miss"]);
                    let rows = self.backend.read(partition, &slots).await?;
                    cache.keep(partition, &slots, &rows, &begun);
                    rows
                }
            },
        };
        self.open_and_report(partition, places, rows).await
    }

    /// Reads the records at these places from the database, and opens them.
    pub(super) async fn read_current(
        &self,
        partition: &Partition,
        places: &[Place],
    ) -> Result<Vec<Option<Record>>, Error> {
        let rows = self.read_rows(partition, places).await?;
        self.open_and_report(partition, places, rows).await
    }

    async fn open_and_report(
        &self,
        partition: &Partition,
        places: &[Place],
        rows: Vec<Option<Row>>,
    ) -> Result<Vec<Option<Record>>, Error> {
        let mut acts = self.witness.acts(partition);
        let records = self
            .open_all(partition, places, rows, Opening::All, &mut acts)
            .await;
        self.witness.report(acts).await.and(records)
    }

    /// Reads the rows at these places from the database, unopened.
    pub(super) async fn read_rows(
        &self,
        partition: &Partition,
        places: &[Place],
    ) -> Result<Vec<Option<Row>>, Error> {
        Ok(self.backend.read(partition, &slots(places)).await?)
    }

    /// Returns a page of the rows of this scope. Logs malformed rows.
    pub(super) async fn scan(
        &self,
        scope: &Scope,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        let page = self.backend.scan(scope, from, limit).await?;
        self.malformed.report(&page);
        Ok(page)
    }

    /// Returns a page of this app's rows that are due in this lane, earliest first. Logs malformed
    /// rows.
    pub(super) async fn due(
        &self,
        lane: Lane,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        let queue = self.app.queue(lane);
        let page = self.backend.due(&queue, now, from, limit).await?;
        self.malformed.report(&page);
        Ok(page)
    }

    /// Removes a row, unless it has changed since it was read. Returns whether the row was removed.
    pub(super) async fn remove(&self, key: Key, only: Version) -> Result<bool, backend::Error> {
        let delete = Change::Delete {
            slot: key.slot,
            only: Some(only),
        };
        match self.commit(&key.partition, &[delete]).await {
            Ok(()) => Ok(true),
            Err(backend::Error::Conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes a record where there is none. Returns [`backend::Error::Conflict`] if there is one.
    pub(super) async fn insert(
        &self,
        partition: &Partition,
        slot: Slot,
        draft: Draft,
    ) -> Result<(), Error> {
        let put = Change::Put {
            expect: Expect::Absent,
            row: self.seal(partition, &slot, draft).await?,
            slot,
        };
        Ok(self.commit(partition, &[put]).await?)
    }

    /// Passes the records at these places to `decide`, and applies the steps that it returns in one
    /// commit. If one of the rows has changed meanwhile, starts over.
    ///
    /// Returns the revision of the first row that was put, and the last result of `decide`.
    pub(super) async fn update<T: Send>(
        &self,
        partition: &Partition,
        places: &[Place],
        decide: impl Fn(&[Option<Record>]) -> Result<(Vec<Step>, T), Error> + Send + Sync,
    ) -> Result<(Option<Revision>, T), Error> {
        let decide = |records: &[Option<Record>], _: &[Option<Row>]| decide(records);
        self.update_with(Opening::All, partition, places, decide)
            .await
    }

    /// Applies this step if the record still has that revision. Returns the revision of the row
    /// that was put, and whether the step was applied.
    pub(super) async fn change(
        &self,
        partition: &Partition,
        place: Place,
        only: Revision,
        step: impl Fn(&Record) -> Result<Step, Error> + Send + Sync,
    ) -> Result<(Option<Revision>, bool), Error> {
        let decide = |records: &[Option<Record>]| {
            let stored = records.iter().flatten().find(|it| it.revision() == only);
            let step = stored.map(&step).transpose()?;
            let is_taken = step.is_some();
            Ok((step.into_iter().collect(), is_taken))
        };
        self.update(partition, &[place], decide).await
    }

    /// Like [`update`](Self::update), but opens only these rows. The decision also receives the
    /// rows themselves.
    pub(super) async fn update_with<T: Send>(
        &self,
        opening: Opening<'_>,
        partition: &Partition,
        places: &[Place],
        decide: impl Fn(&[Option<Record>], &[Option<Row>]) -> Result<(Vec<Step>, T), Error>
        + Send
        + Sync,
    ) -> Result<(Option<Revision>, T), Error> {
        let mut acts = self.witness.acts(partition);
        let outcome = self
            .update_and_note(opening, partition, places, decide, &mut acts)
            .await;
        self.witness.report(acts).await.and(outcome)
    }

    async fn update_and_note<T: Send>(
        &self,
        opening: Opening<'_>,
        partition: &Partition,
        places: &[Place],
        decide: impl Fn(&[Option<Record>], &[Option<Row>]) -> Result<(Vec<Step>, T), Error>
        + Send
        + Sync,
        acts: &mut Acts,
    ) -> Result<(Option<Revision>, T), Error> {
        for _ in 0..ATTEMPTS {
            let rows = self.read_rows(partition, places).await?;
            let records = self
                .open_all(partition, places, rows.clone(), opening, acts)
                .await?;
            let (steps, answer) = decide(&records, &rows)?;
            let changes = self.changes(partition, places, &rows, steps).await?;
            let put = changes.iter().find_map(|change| match change {
                Change::Put { row, .. } => Some(record::revision(row)),
                _ => None,
            });
            if changes.is_empty() {
                return Ok((None, answer));
            }
            let cleared = self.cleared(partition, &changes, acts).await?;
            let begun = self.witness.begin(acts, &changes, &cleared);
            let outcome = self.commit(partition, &changes).await;
            begun.end();
            acts.changed(&changes, &cleared, &outcome);
            match outcome {
                Ok(()) => return Ok((put, answer)),
                Err(backend::Error::Conflict) => metrics::CONFLICTS.add([]),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Unavailable(
            "gave up after 100 attempts: other callers changed the row each time".into(),
        ))
    }

    /// Returns the rows that these changes remove without naming them, if they are to be reported. A
    /// row that another process writes before the commit is missing.
    async fn cleared(
        &self,
        partition: &Partition,
        changes: &[Change],
        acts: &Acts,
    ) -> Result<Vec<(Slot, Version)>, Error> {
        let mut cleared = Vec::new();
        let clears = changes.iter().any(|it| matches!(it, Change::Clear));
        if !acts.is_collecting() || !clears {
            return Ok(cleared);
        }
        let (scope, mut from) = (Scope::Partition(partition.clone()), None);
        loop {
            let page = self.scan(&scope, from, ROWS_AT_ONCE).await?;
            let rows = page.rows.into_iter();
            cleared.extend(rows.map(|(key, row)| (key.slot, row.version)));
            from = page.next;
            if from.is_none() {
                return Ok(cleared);
            }
        }
    }

    /// Commits to this store's backend, after this process's other commits to the partition. The
    /// cache always forgets the partition, even if the commit fails: after a conflict, the cached
    /// rows may be outdated.
    async fn commit(
        &self,
        partition: &Partition,
        changes: &[Change],
    ) -> Result<(), backend::Error> {
        let _forget = self.cache.as_ref().map(|cache| cache.forget(partition));
        let commit = commit(&*self.backend, partition, changes);
        self.locks.run(partition, commit).await
    }

    async fn changes(
        &self,
        partition: &Partition,
        places: &[Place],
        rows: &[Option<Row>],
        steps: Vec<Step>,
    ) -> Result<Vec<Change>, Error> {
        // `None` for a slot that the decision did not read.
        let shown = |slot: &Slot| {
            let at = places.iter().position(|place| place.slot == *slot)?;
            Some(rows.get(at)?.as_ref().map(|row| row.version))
        };
        let mut changes = Vec::with_capacity(steps.len());
        for step in steps {
            changes.push(match step {
                Step::Clear => Change::Clear,
                Step::Delete(slot) => match shown(&slot) {
                    // The decision saw no row. A row that exists now is newer and must stay.
                    Some(None) => continue,
                    shown => Change::Delete {
                        slot,
                        only: shown.flatten(),
                    },
                },
                Step::Check(slot) => match shown(&slot).flatten() {
                    Some(version) => Change::Check { slot, version },
                    None => continue,
                },
                Step::Put(slot, draft) => Change::Put {
                    expect: match shown(&slot) {
                        Some(Some(version)) => Expect::Version(version),
                        Some(None) => Expect::Absent,
                        None => Expect::Any,
                    },
                    row: self.seal(partition, &slot, draft).await?,
                    slot,
                },
            });
        }
        Ok(changes)
    }

    async fn seal(&self, partition: &Partition, slot: &Slot, draft: Draft) -> Result<Row, Error> {
        let (key_id, key) = pins::primary(&self.keys).await?;
        let version = Version::mint();
        // Whole seconds, because the seal binds whole seconds and every backend stores them.
        let due = draft.due.map(|due| Due {
            at: from_epoch(to_epoch(due.at)),
            ..due
        });
        let metadata = Metadata::new(draft.metadata);
        let context = self.context(partition, slot, draft.kind, &version, due, &metadata);
        let sealed = seal::seal(seal::RECORD, key_id, &key, &context, &draft.plaintext);
        Ok(Row {
            version,
            metadata,
            sealed,
            due,
        })
    }

    /// Seals a row again under the primary key. The row keeps its version, so it can still be changed
    /// by a caller that read it before.
    pub(super) async fn reseal(&self, key: &Key, row: &Row) -> Result<RowOutcome, Error> {
        let (id, data_key) = self.keys.primary().await?;
        if row.sealed.key_id() == Ok(id) {
            return Ok(RowOutcome::Current);
        }
        let Key { partition, slot } = key;
        let kind = record::kind_of(row.metadata.as_str());
        let kind = kind.ok_or_else(|| record::unknown("a row's metadata"))?;
        let plaintext = self.open(partition, slot, kind, row).await?;
        let context = self.context(partition, slot, kind, &row.version, row.due, &row.metadata);
        let put = Change::Put {
            slot: slot.clone(),
            row: Row {
                sealed: seal::seal(seal::RECORD, id, &data_key, &context, &plaintext),
                ..row.clone()
            },
            expect: Expect::Version(row.version),
        };
        let _forget = self.cache.as_ref().map(|cache| cache.forget(partition));
        let put = [put];
        // A lost response costs nothing: the row is read again, and sealed again if needed.
        let commit = self.backend.commit(partition, &put);
        match self.locks.run(partition, commit).await {
            Ok(()) => Ok(RowOutcome::Resealed),
            Err(backend::Error::Conflict) => Ok(RowOutcome::Overtaken),
            Err(error) => Err(error.into()),
        }
    }

    async fn open_all(
        &self,
        partition: &Partition,
        places: &[Place],
        rows: Vec<Option<Row>>,
        opening: Opening<'_>,
        acts: &mut Acts,
    ) -> Result<Vec<Option<Record>>, Error> {
        let mut records = Vec::with_capacity(rows.len());
        for (Place { slot, kind }, row) in places.iter().zip(rows) {
            let Some(row) = row else {
                records.push(None);
                continue;
            };
            if matches!(opening, Opening::Only(wanted) if !wanted.contains(kind)) {
                records.push(None);
                continue;
            }
            let opened = self.open(partition, slot, kind, &row).await;
            acts.opened(slot, kind, &row, opened.is_ok());
            records.push(match opened {
                Ok(plaintext) => Some(Record { row, plaintext }),
                // A hold that cannot be read is a hold.
                Err(Error::Unreadable(_)) if *kind == HOLD => {
                    let tenant = tenant_of(partition).map(display);
                    tracing::error!(tenant, "a hold cannot be opened, so it counts as on");
                    Some(Record::unopened(row))
                }
                Err(Error::Unreadable(_)) if matches!(opening, Opening::WhatOpens) => {
                    let tenant = tenant_of(partition).map(display);
                    tracing::warn!(tenant, %slot, "a row that cannot be opened is replaced");
                    None
                }
                Err(error) => return Err(error),
            });
        }
        Ok(records)
    }

    /// Returns the plaintext of this row, if it was sealed for this place and this kind of record.
    pub(super) async fn open(
        &self,
        partition: &Partition,
        slot: &Slot,
        kind: &str,
        row: &Row,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let unreadable = |error: Undecryptable| Error::Unreadable(error.into());
        let key_id = row.sealed.key_id().map_err(unreadable)?;
        let key = pins::get(&self.keys, key_id).await?;
        let context = self.context(partition, slot, kind, &row.version, row.due, &row.metadata);
        seal::open(seal::RECORD, &key, &context, row.sealed.as_bytes()).map_err(unreadable)
    }

    fn context<'a>(
        &'a self,
        partition: &'a Partition,
        slot: &'a Slot,
        kind: &'a str,
        version: &'a Version,
        due: Option<Due>,
        metadata: &'a Metadata,
    ) -> Context<'a> {
        Context {
            app: self.app.as_str(),
            partition: partition.as_str(),
            slot: slot.as_str(),
            kind,
            version: version.as_bytes(),
            due: due.map(|due| (due.lane.as_str(), to_epoch(due.at))),
            metadata: metadata.as_str(),
        }
    }
}

fn slots(places: &[Place]) -> Vec<Slot> {
    places.iter().map(|place| place.slot.clone()).collect()
}

impl<B> fmt::Debug for Driver<B>
where
    B: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("app", &self.app)
            .field("backend", &self.backend)
            .field("cache", &self.cache)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// The rows of a page of a tenant.
const ROWS_AT_ONCE: usize = 1000;

/// How often a decision is made before the call fails. Each lost attempt means that another
/// writer succeeded. So even if all processes of a large app install into one workspace at once,
/// each succeeds in far fewer attempts.
const ATTEMPTS: usize = 100;
