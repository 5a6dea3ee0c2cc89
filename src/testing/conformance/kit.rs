//! Helpers of the checks. All of them accept lost responses.

use std::future::Future;
use std::panic::Location;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::backend::{
    Backend, Change, Cursor, Due, Error, Expect, Key, Lane, Metadata, Page, Partition, Queue, Row,
    Scope, Sealed, Slot, Version,
};
use crate::random;

/// A partition that only the running check uses.
#[derive(Clone)]
pub(super) struct Tenant<'a> {
    pub(super) backend: &'a dyn Backend,
    pub(super) partition: Partition,
}

impl<'a> Tenant<'a> {
    pub(super) fn new(backend: &'a dyn Backend) -> Self {
        Self::named(backend, &unique(), "T1")
    }

    /// Returns a tenant of the app `family`. Tenants of one `family` differ only in their name.
    pub(super) fn named(backend: &'a dyn Backend, family: &str, name: &str) -> Self {
        Self {
            backend,
            partition: partition(&format!("{family}/{name}")),
        }
    }

    /// Commits. If the response is lost, finds out whether the commit was applied. So the outcome
    /// is success, [`Error::Conflict`] or [`Error::Malformed`].
    pub(super) async fn commit(&self, changes: &[Change]) -> Result<(), Error> {
        let puts = changes
            .iter()
            .any(|change| matches!(change, Change::Put { .. }));
        let slots: Vec<_> = changes.iter().filter_map(Change::slot).cloned().collect();
        let before = if puts {
            vec![None; slots.len()]
        } else {
            self.rows(&slots).await
        };
        for _ in 0..ATTEMPTS {
            match self.backend.commit(&self.partition, changes).await {
                Err(Error::Unavailable(_)) => {}
                answered => return answered,
            }
            if happened(changes, &before, &self.rows(&slots).await) {
                return Ok(());
            }
        }
        panic!("the backend stayed unavailable for {ATTEMPTS} commits");
    }

    /// Commits these changes. They must succeed.
    #[track_caller]
    pub(super) fn must_commit(&self, changes: &[Change]) -> impl Future<Output = ()> + Send {
        self.must(changes.to_vec(), Location::caller())
    }

    /// Puts a row. The commit must succeed.
    #[track_caller]
    pub(super) fn must_put(
        &self,
        slot: &Slot,
        row: &Row,
        expect: Expect,
    ) -> impl Future<Output = ()> + Send {
        self.must(vec![put(slot, row, expect)], Location::caller())
    }

    /// Deletes a row. The commit must succeed.
    #[track_caller]
    pub(super) fn must_delete(
        &self,
        slot: &Slot,
        only: Option<Version>,
    ) -> impl Future<Output = ()> + Send {
        self.must(vec![delete(slot, only)], Location::caller())
    }

    async fn must(&self, changes: Vec<Change>, place: &'static Location<'static>) {
        let outcome = self.commit(&changes).await;
        assert!(
            outcome.is_ok(),
            "the commit at {place} must succeed, but: {outcome:?}"
        );
    }

    pub(super) async fn put(&self, slot: &Slot, row: &Row, expect: Expect) -> Result<(), Error> {
        self.commit(&[put(slot, row, expect)]).await
    }

    pub(super) async fn delete(&self, slot: &Slot, only: Option<Version>) -> Result<(), Error> {
        self.commit(&[delete(slot, only)]).await
    }

    /// Puts a new row, whether or not a row exists, and returns it.
    pub(super) async fn plant(&self, slot: &Slot) -> Row {
        self.plant_due(slot, None).await
    }

    /// Puts a new row with this due time, whether or not a row exists, and returns it.
    pub(super) async fn plant_due(&self, slot: &Slot, due: Option<Due>) -> Row {
        let planted = Row { due, ..row() };
        self.must_put(slot, &planted, Expect::Any).await;
        planted
    }

    /// Puts `count` new rows, in commits of many rows.
    pub(super) async fn plant_many(&self, prefix: &str, count: usize, due: Option<Due>) {
        for names in slots(prefix, count).chunks(AT_ONCE) {
            let put = |name| put(name, &Row { due, ..row() }, Expect::Any);
            let puts: Vec<_> = names.iter().map(put).collect();
            self.must_commit(&puts).await;
        }
    }

    pub(super) fn key(&self, slot: &Slot) -> Key {
        Key {
            partition: self.partition.clone(),
            slot: slot.clone(),
        }
    }

    /// Returns the queue of this tenant's app.
    pub(super) fn queue(&self, lane: Lane) -> Queue {
        Queue::new(self.partition.app(), lane).expect("the app of a partition")
    }

    pub(super) async fn rows(&self, slots: &[Slot]) -> Vec<Option<Row>> {
        answer(|| self.backend.read(&self.partition, slots))
            .await
            .expect("a read fails only while the backend is unavailable")
    }

    pub(super) async fn row(&self, slot: &Slot) -> Option<Row> {
        let mut rows = self.rows(std::slice::from_ref(slot)).await;
        assert_eq!(rows.len(), 1, "one slot was requested");
        rows.remove(0)
    }
}

/// Returns whether a commit without a response was applied, from the rows `before` and `after`.
///
/// A put is recognised by its version. A commit without a put is recognised by a version that it
/// deletes, if no other process uses the partition. Otherwise the commit can be repeated.
fn happened(changes: &[Change], before: &[Option<Row>], after: &[Option<Row>]) -> bool {
    let holds = |row: &Option<Row>, version| row.as_ref().is_some_and(|row| row.version == version);
    let slotted = changes.iter().filter(|change| change.slot().is_some());
    slotted
        .zip(before.iter().zip(after))
        .any(|(change, (before, after))| match change {
            Change::Put { row, .. } => holds(after, row.version),
            Change::Delete {
                only: Some(version),
                ..
            } => holds(before, *version) && !holds(after, *version),
            Change::Check { .. } | Change::Delete { only: None, .. } | Change::Clear => false,
        })
}

/// Retries a call while the backend is unavailable. For calls that can be repeated.
pub(super) async fn answer<T, F>(mut ask: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    for _ in 0..ATTEMPTS {
        match ask().await {
            Err(Error::Unavailable(_)) => {}
            answered => return answered,
        }
    }
    panic!("the backend stayed unavailable for {ATTEMPTS} calls");
}

pub(super) async fn page(
    backend: &dyn Backend,
    scope: &Scope,
    from: Option<Cursor>,
    limit: usize,
) -> Result<Page, Error> {
    answer(|| backend.scan(scope, from.clone(), limit)).await
}

pub(super) async fn due_page(
    backend: &dyn Backend,
    queue: &Queue,
    now: SystemTime,
    from: Option<Cursor>,
    limit: usize,
) -> Result<Page, Error> {
    answer(|| backend.due(queue, now, from.clone(), limit)).await
}

pub(super) fn partition(name: &str) -> Partition {
    Partition::new(name).expect("the checks use valid names")
}

pub(super) fn slot(name: &str) -> Slot {
    Slot::new(name).expect("the checks use valid names")
}

pub(super) fn slots(prefix: &str, count: usize) -> Vec<Slot> {
    (0..count)
        .map(|at| slot(&format!("{prefix}{at:03}")))
        .collect()
}

/// Returns a name that no other check, and no other run, has.
pub(super) fn unique() -> String {
    format!("{:032x}", u128::from_be_bytes(random::bytes()))
}

pub(super) fn row() -> Row {
    row_with(r#"{"v":1}"#)
}

pub(super) fn row_with(metadata: &str) -> Row {
    let version = Version::mint();
    let sealed = sealed(&random::bytes::<128>());
    Row {
        version,
        metadata: Metadata::new(metadata),
        sealed,
        due: None,
    }
}

/// Returns an envelope with these bytes. Its form is valid, but no key opens it.
pub(super) fn sealed(content: &[u8]) -> Sealed {
    let mut bytes = b"SLE1".to_vec();
    bytes.resize(ENVELOPE_LEN, 0x5a);
    bytes.extend_from_slice(content);
    let sealed = Sealed::from_stored(bytes);
    assert_eq!(
        sealed.as_bytes().len(),
        ENVELOPE_LEN + content.len(),
        "the bytes must be treated as an envelope"
    );
    sealed
}

pub(super) fn put(slot: &Slot, row: &Row, expect: Expect) -> Change {
    Change::Put {
        slot: slot.clone(),
        row: row.clone(),
        expect,
    }
}

pub(super) fn delete(slot: &Slot, only: Option<Version>) -> Change {
    Change::Delete {
        slot: slot.clone(),
        only,
    }
}

pub(super) fn check(slot: &Slot, version: Version) -> Change {
    Change::Check {
        slot: slot.clone(),
        version,
    }
}

pub(super) fn due(lane: Lane, at: u64) -> Option<Due> {
    let at = seconds(at);
    Some(Due { lane, at })
}

pub(super) fn seconds(since_1970: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(since_1970)
}

#[track_caller]
pub(super) fn assert_conflict(outcome: &Result<(), Error>) {
    assert!(
        matches!(outcome, Err(Error::Conflict)),
        "expected a conflict, got {outcome:?}"
    );
}

#[track_caller]
pub(super) fn assert_malformed<T: std::fmt::Debug>(outcome: &Result<T, Error>) {
    assert!(
        matches!(outcome, Err(Error::Malformed(_))),
        "expected a malformed error, got {outcome:?}"
    );
}

/// The rows of one commit of `plant_many`.
const AT_ONCE: usize = 50;

/// The number of attempts before an unavailable backend is considered down.
const ATTEMPTS: usize = 100;

/// With the pause, ten seconds. An index with a longer lag is useless for a worker.
pub(super) const LAG_ATTEMPTS: usize = 100;

pub(super) const LAG_PAUSE: Duration = Duration::from_millis(100);

/// The length of an empty envelope: magic, key id, commitment, nonce and tag.
pub(super) const ENVELOPE_LEN: usize = 80;

/// Reads the pages of a scan or a queue, and checks that each is within the limit.
pub(super) struct Pages<'a> {
    backend: &'a dyn Backend,
    of: Of<'a>,
    limit: usize,
    count: usize,
    next: Option<Cursor>,
}

enum Of<'a> {
    Queue(&'a Queue, SystemTime),
    Scope(&'a Scope),
}

impl<'a> Pages<'a> {
    pub(super) fn scan(backend: &'a dyn Backend, scope: &'a Scope, limit: usize) -> Self {
        Self::new(backend, Of::Scope(scope), limit)
    }

    pub(super) fn due(
        backend: &'a dyn Backend,
        queue: &'a Queue,
        now: SystemTime,
        limit: usize,
    ) -> Self {
        Self::new(backend, Of::Queue(queue, now), limit)
    }

    fn new(backend: &'a dyn Backend, of: Of<'a>, limit: usize) -> Self {
        Self {
            backend,
            of,
            limit,
            count: 0,
            next: None,
        }
    }

    /// Returns the number of pages so far.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Returns the next page; `None` after the last.
    pub(super) async fn next(&mut self) -> Option<Page> {
        if self.count > 0 && self.next.is_none() {
            return None;
        }
        let (from, limit) = (self.next.take(), self.limit);
        let page = match self.of {
            Of::Queue(queue, now) => due_page(self.backend, queue, now, from, limit).await,
            Of::Scope(scope) => page(self.backend, scope, from, limit).await,
        };
        let page = page.expect("a scan continues from its own cursor");
        let count = page.rows.len() + page.malformed.len();
        assert!(
            count <= limit.max(1),
            "a page has {count} rows, with a limit of {limit}"
        );
        assert!(self.count < MOST_PAGES, "the pages must end");
        self.count += 1;
        self.next = page.next.clone();
        Some(page)
    }
}

/// More pages than any test database has rows. A scan with more pages never ends.
const MOST_PAGES: usize = 100_000;
