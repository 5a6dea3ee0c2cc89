//! Reads, decides, commits by version, and starts over when a row moved. Once, for every record.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::cache::{Cache, CacheOptions};
use super::keys::Keys;
use super::odd::OddRows;
use super::whole_seconds;
use crate::backend::{
    self, Backend, Change, Cursor, Due, Expect, Key, Lane, Metadata, Page, Partition, Queue, Row,
    Scope, Slot, Version,
};
use crate::clock::to_epoch;
use crate::installation::Revision;
use crate::seal::{self, Context, Undecryptable};
use crate::store::Error;
use crate::tenant::ClientId;

/// One app's records in one backend.
pub(super) struct Driver<B> {
    backend: Arc<B>,
    keys: Arc<Keys<B>>,
    app: ClientId,
    cache: Option<Arc<Cache>>,
    odd: OddRows,
}

/// A record, opened.
pub(super) struct Record {
    pub(super) row: Row,
    pub(super) plaintext: Zeroizing<Vec<u8>>,
}

impl Record {
    pub(super) fn revision(&self) -> Revision {
        Revision::from_bytes(*self.row.version.as_bytes())
    }
}

/// A record to be written.
pub(super) struct Draft {
    pub(super) kind: &'static str,
    pub(super) metadata: String,
    pub(super) plaintext: Zeroizing<Vec<u8>>,
    pub(super) due: Option<Due>,
}

/// A slot, and the kind of record that it must hold.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) slot: Slot,
    pub(super) kind: &'static str,
}

/// What a row that does not open is to a decision.
#[derive(Clone, Copy)]
enum Unopenable {
    Fails,
    IsAbsent,
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
    pub(super) fn new(backend: Arc<B>, keys: Arc<Keys<B>>, app: ClientId) -> Self {
        Self {
            backend,
            keys,
            app,
            cache: None,
            odd: OddRows::default(),
        }
    }

    /// The same, with a cache for plain reads.
    pub(super) fn with_cache(&self, options: CacheOptions) -> Self {
        Self {
            backend: Arc::clone(&self.backend),
            keys: Arc::clone(&self.keys),
            app: self.app.clone(),
            cache: Some(Arc::new(Cache::new(options))),
            odd: OddRows::default(),
        }
    }

    pub(super) fn app(&self) -> &ClientId {
        &self.app
    }

    pub(super) fn backend(&self) -> &B {
        &self.backend
    }

    pub(super) fn keys(&self) -> &Arc<Keys<B>> {
        &self.keys
    }

    /// The records at these places, opened. The rows may come from the cache: for reads that no
    /// decision is taken on.
    pub(super) async fn read(
        &self,
        partition: &Partition,
        places: &[Place],
    ) -> Result<Vec<Option<Record>>, Error> {
        let rows = self.cached_rows(partition, places).await?;
        self.open_all(partition, places, rows, Unopenable::Fails)
            .await
    }

    /// The records at these places, opened, as the database has them.
    pub(super) async fn read_current(
        &self,
        partition: &Partition,
        places: &[Place],
    ) -> Result<Vec<Option<Record>>, Error> {
        let rows = self.read_rows(partition, places).await?;
        self.open_all(partition, places, rows, Unopenable::Fails)
            .await
    }

    /// The rows at these places, unopened, as the database has them.
    pub(super) async fn read_rows(
        &self,
        partition: &Partition,
        places: &[Place],
    ) -> Result<Vec<Option<Row>>, Error> {
        Ok(self.backend.read(partition, &slots(places)).await?)
    }

    async fn cached_rows(
        &self,
        partition: &Partition,
        places: &[Place],
    ) -> Result<Vec<Option<Row>>, Error> {
        let Some(cache) = &self.cache else {
            return self.read_rows(partition, places).await;
        };
        let slots = slots(places);
        match cache.begin(partition, &slots) {
            Ok(rows) => Ok(rows),
            Err(begun) => {
                let rows = self.backend.read(partition, &slots).await?;
                cache.keep(partition, &slots, &rows, &begun);
                Ok(rows)
            }
        }
    }

    /// A page of the rows of this scope. Odd rows are reported.
    pub(super) async fn scan(
        &self,
        scope: &Scope,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        let page = self.backend.scan(scope, from, limit).await?;
        self.odd.report(&page);
        Ok(page)
    }

    /// A page of this app's rows that are due in this lane, the earliest first. Odd rows are
    /// reported.
    pub(super) async fn due(
        &self,
        lane: Lane,
        now: SystemTime,
        from: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        let queue = Queue::new(self.app.as_str(), lane).expect("a client id has digits and dots");
        let page = self.backend.due(&queue, now, from, limit).await?;
        self.odd.report(&page);
        Ok(page)
    }

    /// Removes a row that was found, unless it moved since. Answers whether it did.
    pub(super) async fn remove(&self, key: Key, only: Version) -> Result<bool, backend::Error> {
        let delete = Change::Delete {
            slot: key.slot,
            only: Some(only),
        };
        match self.commit_once(&key.partition, &[delete]).await {
            Ok(()) => Ok(true),
            Err(backend::Error::Conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Shows the records at these places to `decide`, and carries out what it answers in one
    /// commit. Starts over when one of the rows has moved meanwhile.
    ///
    /// Answers the version of each row put, in order, beside what `decide` answered.
    pub(super) async fn update<T: Send>(
        &self,
        partition: &Partition,
        places: &[Place],
        decide: impl Fn(&[Option<Record>]) -> Result<(Vec<Step>, T), Error> + Send + Sync,
    ) -> Result<(Vec<Version>, T), Error> {
        let decide = |records: &[Option<Record>], _: &[Option<Row>]| decide(records);
        self.update_records(partition, places, Unopenable::Fails, decide)
            .await
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
    ) -> Result<(Vec<Version>, T), Error> {
        self.update_records(partition, places, Unopenable::IsAbsent, decide)
            .await
    }

    async fn update_records<T: Send>(
        &self,
        partition: &Partition,
        places: &[Place],
        unopenable: Unopenable,
        decide: impl Fn(&[Option<Record>], &[Option<Row>]) -> Result<(Vec<Step>, T), Error>
        + Send
        + Sync,
    ) -> Result<(Vec<Version>, T), Error> {
        for _ in 0..ATTEMPTS {
            let rows = self.read_rows(partition, places).await?;
            let records = self
                .open_all(partition, places, rows.clone(), unopenable)
                .await?;
            let (steps, answer) = decide(&records, &rows)?;
            let (changes, versions) = self.changes(partition, places, &rows, steps).await?;
            if self.commit(partition, &changes, &versions).await? {
                return Ok((versions, answer));
            }
        }
        Err(Error::Unavailable(
            "a row was changed by others again and again".into(),
        ))
    }

    /// As [`update`](Self::update), for decisions that need no plaintext, so that a row that
    /// does not open can still be removed.
    pub(super) async fn update_unopened<T: Send>(
        &self,
        partition: &Partition,
        places: &[Place],
        decide: impl Fn(&[Option<Row>]) -> Result<(Vec<Step>, T), Error> + Send + Sync,
    ) -> Result<T, Error> {
        for _ in 0..ATTEMPTS {
            let rows = self.read_rows(partition, places).await?;
            let (steps, answer) = decide(&rows)?;
            let (changes, versions) = self.changes(partition, places, &rows, steps).await?;
            if self.commit(partition, &changes, &versions).await? {
                return Ok(answer);
            }
        }
        Err(Error::Unavailable(
            "a row was changed by others again and again".into(),
        ))
    }

    /// Each commit to this store's backend. The cache forgets the partition, whatever comes of it:
    /// after a conflict, what was kept may be what is outdated.
    async fn commit_once(
        &self,
        partition: &Partition,
        changes: &[Change],
    ) -> Result<(), backend::Error> {
        let _forget = self.cache.as_ref().map(|cache| cache.forget(partition));
        self.backend.commit(partition, changes).await
    }

    /// Commits once. `false` if a row was not as expected.
    async fn commit(
        &self,
        partition: &Partition,
        changes: &[Change],
        versions: &[Version],
    ) -> Result<bool, Error> {
        if changes.is_empty() {
            return Ok(true);
        }
        let lost = match self.commit_once(partition, changes).await {
            Ok(()) => return Ok(true),
            Err(backend::Error::Conflict) => return Ok(false),
            Err(error @ backend::Error::Malformed(_)) => return Err(error.into()),
            Err(backend::Error::Unavailable(lost)) => lost,
        };
        // The answer was lost, the commit perhaps not. A row that we wrote carries the version
        // that we minted. If every row still is as it was expected, nothing happened, and the
        // decision is taken anew. Otherwise ours may have happened and be replaced or purged
        // since: to write it again could bring back what somebody else removed.
        let puts = || {
            let is_put = |change: &&Change| matches!(change, Change::Put { .. });
            changes.iter().filter(is_put)
        };
        let slots: Vec<_> = puts().filter_map(Change::slot).cloned().collect();
        let Ok(rows) = self.backend.read(partition, &slots).await else {
            return Err(Error::Unavailable(lost));
        };
        let stands: Vec<_> = rows
            .iter()
            .map(|row| row.as_ref().map(|row| row.version))
            .collect();
        let is_ours = |row: &Row| versions.contains(&row.version);
        let as_expected = puts()
            .zip(&stands)
            .all(|(put, version)| put.allows(*version));
        let ours: Vec<_> = slots
            .into_iter()
            .zip(rows)
            .filter_map(|(slot, row)| Some((slot, row.filter(is_ours)?)))
            .collect();
        match ours.is_empty() {
            false if self.confirm(partition, ours).await => Ok(true),
            true if as_expected && !versions.is_empty() => Ok(false),
            _ => Err(Error::Unavailable(lost)),
        }
    }

    /// Whether rows of ours that exist are there to stay: the database may have written them, and
    /// not have made them safe yet (on other machines, on a disk).
    ///
    /// A [`Change::Check`] would not do. It writes nothing, so a database has nothing to wait for:
    /// Redis would ask its replicas about an older write, and Postgres ends a transaction that
    /// wrote nothing without its standby. So each row is put over itself, and the answer to that
    /// counts. The ciphertext that this puts is the one that this very commit sealed. Should the
    /// row be sealed anew under another key in between, the older ciphertext comes back; its key
    /// was the primary moments ago, and no key is destroyed while a row needs it.
    async fn confirm(&self, partition: &Partition, rows: Vec<(Slot, Row)>) -> bool {
        let over_itself = |(slot, row): (Slot, Row)| Change::Put {
            slot,
            expect: Expect::Version(row.version),
            row,
        };
        let changes: Vec<_> = rows.into_iter().map(over_itself).collect();
        for _ in 0..CONFIRMATIONS {
            match self.commit_once(partition, &changes).await {
                Ok(()) => return true,
                // This answer may be lost too.
                Err(backend::Error::Unavailable(_)) => {}
                Err(_) => return false,
            }
        }
        false
    }

    async fn changes(
        &self,
        partition: &Partition,
        places: &[Place],
        rows: &[Option<Row>],
        steps: Vec<Step>,
    ) -> Result<(Vec<Change>, Vec<Version>), Error> {
        let shown = |slot: &Slot| {
            let at = places.iter().position(|place| place.slot == *slot)?;
            rows.get(at)
        };
        let mut changes = Vec::with_capacity(steps.len());
        let mut versions = Vec::new();
        for step in steps {
            changes.push(match step {
                Step::Clear => Change::Clear,
                Step::Delete(slot) => match shown(&slot) {
                    Some(Some(row)) => Change::Delete {
                        slot,
                        only: Some(row.version),
                    },
                    // Whatever stands there by now was written since: it is not ours to remove.
                    Some(None) => continue,
                    None => Change::Delete { slot, only: None },
                },
                Step::Check(slot) => match shown(&slot).and_then(Option::as_ref) {
                    Some(row) => Change::Check {
                        slot,
                        version: row.version,
                    },
                    None => continue,
                },
                Step::Put(slot, draft) => {
                    let expect = match shown(&slot) {
                        Some(Some(row)) => Expect::Version(row.version),
                        Some(None) => Expect::Absent,
                        None => Expect::Any,
                    };
                    let row = self.seal(partition, &slot, draft).await?;
                    versions.push(row.version);
                    Change::Put { slot, row, expect }
                }
            });
        }
        Ok((changes, versions))
    }

    async fn seal(&self, partition: &Partition, slot: &Slot, draft: Draft) -> Result<Row, Error> {
        let (key_id, key) = self.keys.primary().await?;
        let version = Version::mint();
        let due = draft.due.map(|due| Due {
            at: whole_seconds(due.at),
            ..due
        });
        let context = Context {
            app: self.app.as_str(),
            partition: partition.as_str(),
            slot: slot.as_str(),
            kind: draft.kind,
            version: version.as_bytes(),
            due: due.map(sealed_due),
            metadata: &draft.metadata,
        };
        let sealed = seal::seal(seal::RECORD, key_id, &key, &context, &draft.plaintext);
        Ok(Row {
            version,
            metadata: Metadata::new(draft.metadata),
            sealed,
            due,
        })
    }

    async fn open_all(
        &self,
        partition: &Partition,
        places: &[Place],
        rows: Vec<Option<Row>>,
        unopenable: Unopenable,
    ) -> Result<Vec<Option<Record>>, Error> {
        let mut records = Vec::with_capacity(rows.len());
        for (place, row) in places.iter().zip(rows) {
            let Some(row) = row else {
                records.push(None);
                continue;
            };
            records.push(match (self.open(partition, place, row).await, unopenable) {
                (Err(Error::Unreadable(_)), Unopenable::IsAbsent) => {
                    tracing::warn!(%partition, slot = %place.slot, "replacing a row that does not open");
                    None
                }
                (opened, _) => Some(opened?),
            });
        }
        Ok(records)
    }

    async fn open(&self, partition: &Partition, place: &Place, row: Row) -> Result<Record, Error> {
        let plaintext = self
            .plaintext(partition, &place.slot, place.kind, &row)
            .await?;
        Ok(Record { row, plaintext })
    }

    /// What is sealed in this row, if it was sealed for this place and as this kind of record.
    pub(super) async fn plaintext(
        &self,
        partition: &Partition,
        slot: &Slot,
        kind: &str,
        row: &Row,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let unreadable = |error: Undecryptable| Error::Unreadable(error.into());
        let key_id = row.sealed.key_id().map_err(unreadable)?;
        let key = self.keys.get(key_id).await?;
        let context = Context {
            app: self.app.as_str(),
            partition: partition.as_str(),
            slot: slot.as_str(),
            kind,
            version: row.version.as_bytes(),
            due: row.due.map(sealed_due),
            metadata: row.metadata.as_str(),
        };
        seal::open(seal::RECORD, &key, &context, row.sealed.as_bytes()).map_err(unreadable)
    }
}

fn slots(places: &[Place]) -> Vec<Slot> {
    places.iter().map(|place| place.slot.clone()).collect()
}

/// What the seal binds of a row's due time.
fn sealed_due(due: Due) -> (&'static str, u64) {
    (due.lane.as_str(), to_epoch(due.at))
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

/// How often rows whose answer was lost are confirmed. Losing three answers in a row is an outage.
const CONFIRMATIONS: usize = 2;
