//! Reads, decides, commits by version, and starts over when a row moved. Once, for every record.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::cache::{Cache, CacheOptions};
use super::commit::commit;
use super::keys::Keys;
use super::malformed::MalformedRows;
use super::names::{App, Place};
use super::record::{self, Draft, Record};
use crate::backend::{
    self, Backend, Change, Cursor, Due, Expect, Key, Lane, Metadata, Page, Partition, Row, Scope,
    Slot, Version,
};
use crate::clock::{from_epoch, to_epoch};
use crate::installation::Revision;
use crate::seal::{self, Context, Undecryptable};
use crate::store::Error;

/// One app's records in one backend.
pub(super) struct Driver<B> {
    pub(super) app: App,
    pub(super) backend: Arc<B>,
    pub(super) keys: Arc<Keys<B>>,
    cache: Option<Cache>,
    malformed: MalformedRows,
}

/// Which of the rows that a decision is about are opened.
#[derive(Clone, Copy)]
enum Opening {
    /// All of them. A row that does not open is an error.
    All,
    /// Those that open. A row that does not is shown as an absent record.
    WhatOpens,
    /// None: the decision needs no plaintext.
    Nothing,
}

/// One step of a decision. A slot that the decision was shown must still hold what it held then.
pub(super) enum Step {
    /// Removes every row of the partition.
    Clear,
    /// Removes a row.
    Delete(Slot),
    /// Leaves a row that the decision was shown, but takes part only if it still stands.
    Check(Slot),
    /// Writes a row.
    Put(Slot, Draft),
}

impl<B: Backend> Driver<B> {
    pub(super) fn new(backend: Arc<B>, keys: Arc<Keys<B>>, app: App) -> Self {
        Self {
            app,
            backend,
            keys,
            cache: None,
            malformed: MalformedRows::default(),
        }
    }

    /// The same, with a cache for plain reads.
    pub(super) fn with_cache(&self, options: CacheOptions) -> Self {
        let (backend, keys) = (Arc::clone(&self.backend), Arc::clone(&self.keys));
        Self {
            cache: Some(Cache::new(options)),
            ..Self::new(backend, keys, self.app.clone())
        }
    }

    /// The records at these places, opened. The rows may come from the cache: for reads that no
    /// decision is taken on.
    pub(super) async fn read(
        &self,
        partition: &Partition,
        places: &[Place],
    ) -> Result<Vec<Option<Record>>, Error> {
        let slots = slots(places);
        let rows = match &self.cache {
            None => self.backend.read(partition, &slots).await?,
            Some(cache) => match cache.begin(partition, &slots) {
                Ok(rows) => rows,
                Err(begun) => {
                    let rows = self.backend.read(partition, &slots).await?;
                    cache.keep(partition, &slots, &rows, &begun);
                    rows
                }
            },
        };
        self.open_all(partition, places, rows, Opening::All).await
    }

    /// The records at these places, opened, as the database has them.
    pub(super) async fn read_current(
        &self,
        partition: &Partition,
        places: &[Place],
    ) -> Result<Vec<Option<Record>>, Error> {
        let rows = self.read_rows(partition, places).await?;
        self.open_all(partition, places, rows, Opening::All).await
    }

    /// The rows at these places, unopened, as the database has them.
    pub(super) async fn read_rows(
        &self,
        partition: &Partition,
        places: &[Place],
    ) -> Result<Vec<Option<Row>>, Error> {
        Ok(self.backend.read(partition, &slots(places)).await?)
    }

    /// A page of the rows of this scope. Malformed rows are reported.
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

    /// A page of this app's rows that are due in this lane, the earliest first. Malformed rows are
    /// reported.
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

    /// Removes a row that was found, unless it moved since. Answers whether it did.
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

    /// Shows the records at these places to `decide`, and carries out what it answers in one
    /// commit. Starts over when one of the rows has moved meanwhile.
    ///
    /// Returns the revision of the first row that was put, and what `decide` returned last.
    pub(super) async fn update<T: Send>(
        &self,
        partition: &Partition,
        places: &[Place],
        decide: impl Fn(&[Option<Record>]) -> Result<(Vec<Step>, T), Error> + Send + Sync,
    ) -> Result<(Option<Revision>, T), Error> {
        let decide = |records: &[Option<Record>], _: &[Option<Row>]| decide(records);
        self.decided(partition, places, Opening::All, decide).await
    }

    /// As [`update`](Self::update), for decisions that replace what stands: a row that does not
    /// open is shown as an absent record beside its row, and overwritten.
    pub(super) async fn replace<T: Send>(
        &self,
        partition: &Partition,
        places: &[Place],
        decide: impl Fn(&[Option<Record>], &[Option<Row>]) -> Result<(Vec<Step>, T), Error>
        + Send
        + Sync,
    ) -> Result<(Option<Revision>, T), Error> {
        self.decided(partition, places, Opening::WhatOpens, decide)
            .await
    }

    /// As [`update`](Self::update), for decisions that need no plaintext, so that a row that
    /// does not open can still be removed.
    pub(super) async fn update_unopened<T: Send>(
        &self,
        partition: &Partition,
        places: &[Place],
        decide: impl Fn(&[Option<Row>]) -> Result<(Vec<Step>, T), Error> + Send + Sync,
    ) -> Result<(Option<Revision>, T), Error> {
        let decide = |_: &[Option<Record>], rows: &[Option<Row>]| decide(rows);
        self.decided(partition, places, Opening::Nothing, decide)
            .await
    }

    /// Takes this step if the record is still of that revision. Returns the revision of the row
    /// that was put, and whether the step was taken.
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

    async fn decided<T: Send>(
        &self,
        partition: &Partition,
        places: &[Place],
        opening: Opening,
        decide: impl Fn(&[Option<Record>], &[Option<Row>]) -> Result<(Vec<Step>, T), Error>
        + Send
        + Sync,
    ) -> Result<(Option<Revision>, T), Error> {
        for _ in 0..ATTEMPTS {
            let rows = self.read_rows(partition, places).await?;
            let records = match opening {
                Opening::Nothing => Vec::new(),
                _ => {
                    self.open_all(partition, places, rows.clone(), opening)
                        .await?
                }
            };
            let (steps, answer) = decide(&records, &rows)?;
            let changes = self.changes(partition, places, &rows, steps).await?;
            let put = changes.iter().find_map(|change| match change {
                Change::Put { row, .. } => Some(record::revision(row)),
                _ => None,
            });
            if changes.is_empty() {
                return Ok((None, answer));
            }
            match self.commit(partition, &changes).await {
                Ok(()) => return Ok((put, answer)),
                Err(backend::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Unavailable(
            "a row was changed by others again and again".into(),
        ))
    }

    /// Each commit to this store's backend. The cache forgets the partition, whatever comes of it:
    /// after a conflict, what was kept may be what is outdated.
    async fn commit(
        &self,
        partition: &Partition,
        changes: &[Change],
    ) -> Result<(), backend::Error> {
        let _forget = self.cache.as_ref().map(|cache| cache.forget(partition));
        commit(&*self.backend, partition, changes).await
    }

    async fn changes(
        &self,
        partition: &Partition,
        places: &[Place],
        rows: &[Option<Row>],
        steps: Vec<Step>,
    ) -> Result<Vec<Change>, Error> {
        // `None` for a slot that was not shown.
        let shown = |slot: &Slot| {
            let at = places.iter().position(|place| place.slot == *slot)?;
            Some(rows.get(at)?.as_ref().map(|row| row.version))
        };
        let mut changes = Vec::with_capacity(steps.len());
        for step in steps {
            changes.push(match step {
                Step::Clear => Change::Clear,
                Step::Delete(slot) => match shown(&slot) {
                    // Whatever stands there by now was written since: it is not ours to remove.
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
        let (key_id, key) = self.keys.primary().await?;
        let version = Version::mint();
        // Whole seconds: what the seal binds, and what every backend keeps.
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

    async fn open_all(
        &self,
        partition: &Partition,
        places: &[Place],
        rows: Vec<Option<Row>>,
        opening: Opening,
    ) -> Result<Vec<Option<Record>>, Error> {
        let mut records = Vec::with_capacity(rows.len());
        for (Place { slot, kind }, row) in places.iter().zip(rows) {
            let Some(row) = row else {
                records.push(None);
                continue;
            };
            records.push(match self.open(partition, slot, kind, &row).await {
                Ok(plaintext) => Some(Record { row, plaintext }),
                Err(Error::Unreadable(_)) if matches!(opening, Opening::WhatOpens) => {
                    tracing::warn!(%partition, %slot, "replacing a row that does not open");
                    None
                }
                Err(error) => return Err(error),
            });
        }
        Ok(records)
    }

    /// What is sealed in this row, if it was sealed for this place and as this kind of record.
    pub(super) async fn open(
        &self,
        partition: &Partition,
        slot: &Slot,
        kind: &str,
        row: &Row,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let unreadable = |error: Undecryptable| Error::Unreadable(error.into());
        let key_id = row.sealed.key_id().map_err(unreadable)?;
        let key = self.keys.get(key_id).await?;
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
            .finish()
    }
}

/// How often a decision is taken anew before the caller is told to come back. Each lost attempt
/// means that another writer got through, so a whole fleet installing one workspace at once still
/// ends well below.
const ATTEMPTS: usize = 100;
