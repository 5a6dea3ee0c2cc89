//! What the checks are written with. Everything here puts up with lost answers.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::backend::{
    Backend, Change, Cursor, Error, Expect, Key, Metadata, Page, Partition, Row, Sealed, Slot,
    Version,
};
use crate::random;

/// One partition that only the running check knows.
#[derive(Clone)]
pub(super) struct Tenant<'a> {
    pub(super) backend: &'a dyn Backend,
    pub(super) partition: Partition,
}

impl<'a> Tenant<'a> {
    pub(super) fn new(backend: &'a dyn Backend) -> Self {
        Self::named(backend, &unique(), "T1")
    }

    /// Tenants of one `family` differ in nothing but this name.
    pub(super) fn named(backend: &'a dyn Backend, family: &str, name: &str) -> Self {
        Self {
            backend,
            partition: partition(&format!("conformance/{family}/{name}")),
        }
    }

    /// Commits. Finds out what became of it if the answer is lost, so that the outcome is one of
    /// success, [`Error::Conflict`] and [`Error::Malformed`].
    pub(super) async fn commit(&self, changes: &[Change]) -> Result<(), Error> {
        let puts = changes
            .iter()
            .any(|change| matches!(change, Change::Put { .. }));
        let slots: Vec<_> = changes.iter().filter_map(Change::slot).cloned().collect();
        let before = match puts {
            true => vec![None; slots.len()],
            false => self.rows(&slots).await,
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

    pub(super) async fn put(&self, slot: &Slot, row: &Row, expect: Expect) -> Result<(), Error> {
        self.commit(&[put(slot, row, expect)]).await
    }

    pub(super) async fn delete(&self, slot: &Slot, only: Option<Version>) -> Result<(), Error> {
        self.commit(&[delete(slot, only)]).await
    }

    /// Puts a new row, whatever stood there, and answers it.
    pub(super) async fn plant(&self, slot: &Slot) -> Row {
        let planted = row();
        self.put(slot, &planted, Expect::Any)
            .await
            .expect("any row may be put where any stands");
        planted
    }

    pub(super) async fn rows(&self, slots: &[Slot]) -> Vec<Option<Row>> {
        answer(|| self.backend.read(&self.partition, slots))
            .await
            .expect("a read fails only while the backend is unavailable")
    }

    pub(super) async fn row(&self, slot: &Slot) -> Option<Row> {
        let mut rows = self.rows(std::slice::from_ref(slot)).await;
        assert_eq!(rows.len(), 1, "one slot asked for");
        rows.remove(0)
    }
}

/// Whether a commit without an answer happened, by what stood there `before` and `after`.
///
/// A put is known by its version. A commit without any is known by the gap where a version stood
/// that it deletes, as long as nobody else is in the partition; otherwise it can be done again.
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
            Change::Delete { only: None, .. } | Change::Clear => false,
        })
}

/// Asks again while the backend is unavailable. For calls that change nothing.
async fn answer<T, F>(mut ask: impl FnMut() -> F) -> Result<T, Error>
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
    from: Option<Cursor>,
    limit: usize,
) -> Result<Page, Error> {
    answer(|| backend.scan(from.clone(), limit)).await
}

pub(super) async fn due(backend: &dyn Backend, now: SystemTime, limit: usize) -> Vec<(Key, Row)> {
    let answered = answer(|| backend.due(now, limit)).await;
    answered.expect("what is due can be asked for while the backend is available")
}

/// Does all of these at once, in one task.
pub(super) async fn join_all<'a, T>(
    futures: impl IntoIterator<Item: Future<Output = T> + Send + 'a>,
) -> Vec<T> {
    let mut running: Vec<_> = futures
        .into_iter()
        .map(|it| (Some(boxed(it)), None))
        .collect();
    poll_fn(|context| {
        let mut all_done = true;
        for (future, output) in &mut running {
            if let Some(polled) = future {
                match polled.as_mut().poll(context) {
                    Poll::Ready(ready) => (*future, *output) = (None, Some(ready)),
                    Poll::Pending => all_done = false,
                }
            }
        }
        match all_done {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    running
        .into_iter()
        .filter_map(|(_, output)| output)
        .collect()
}

pub(super) fn boxed<'a, T>(
    future: impl Future<Output = T> + Send + 'a,
) -> Pin<Box<dyn Future<Output = T> + Send + 'a>> {
    Box::pin(future)
}

pub(super) fn partition(name: &str) -> Partition {
    Partition::new(name).expect("the checks use plain, short names")
}

pub(super) fn slot(name: &str) -> Slot {
    Slot::new(name).expect("the checks use plain, short names")
}

pub(super) fn slots(prefix: &str, count: usize) -> Vec<Slot> {
    (0..count)
        .map(|at| slot(&format!("{prefix}{at:03}")))
        .collect()
}

/// A name that no other check, and no other run, has.
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
        due_at: None,
    }
}

/// An envelope around these bytes: it has the form of one, and opens for nobody.
pub(super) fn sealed(content: &[u8]) -> Sealed {
    let mut bytes = b"SLE1".to_vec();
    bytes.resize(ENVELOPE_LEN, 0x5a);
    bytes.extend_from_slice(content);
    let sealed = Sealed::from_stored(bytes);
    assert_eq!(
        sealed.as_bytes().len(),
        ENVELOPE_LEN + content.len(),
        "taken for an envelope"
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
        "expected malformed, got {outcome:?}"
    );
}

/// How often a call is made before an unavailable backend is taken to be down.
const ATTEMPTS: usize = 100;

/// An envelope of nothing: magic, key id, commitment, nonce and tag.
pub(super) const ENVELOPE_LEN: usize = 80;
