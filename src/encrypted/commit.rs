//! One commit. If its response is lost, finds out whether it was applied.

use crate::backend::{Backend, Change, Error, Expect, Partition, Row, Slot};

/// Commits these changes, whose rows have versions that the caller has minted for them. After
/// [`Error::Conflict`], none of them was applied.
///
/// After [`Error::Unavailable`], this commit may have written some of the rows, and another caller
/// may have replaced or deleted them since. Writing them again could restore deleted rows. Even if
/// the rows are unchanged, the error stays what the database said: if its disk is full or the row
/// is locked, an immediate repetition fails too.
pub(super) async fn commit<B: Backend + ?Sized>(
    backend: &B,
    partition: &Partition,
    changes: &[Change],
) -> Result<(), Error> {
    // Meanwhile, the row may have been sealed again under another key. It keeps its version then.
    let is_ours = |put: &Row, stored: &Row| put.version == stored.version;
    commit_or_confirm(backend, partition, changes, is_ours).await
}

/// Commits copies of rows, which have the versions of the rows that they copy.
pub(super) async fn commit_copy<B: Backend + ?Sized>(
    backend: &B,
    partition: &Partition,
    changes: &[Change],
) -> Result<(), Error> {
    commit_or_confirm(backend, partition, changes, PartialEq::eq).await
}

async fn commit_or_confirm<B: Backend + ?Sized>(
    backend: &B,
    partition: &Partition,
    changes: &[Change],
    is_ours: fn(&Row, &Row) -> bool,
) -> Result<(), Error> {
    let lost = match backend.commit(partition, changes).await {
        Err(Error::Unavailable(lost)) => lost,
        outcome => return outcome,
    };
    let puts = || {
        changes.iter().filter_map(|change| match change {
            Change::Put { slot, row, .. } => Some((slot, row)),
            _ => None,
        })
    };
    let slots: Vec<_> = puts().map(|(slot, _)| slot.clone()).collect();
    let Ok(rows) = backend.read(partition, &slots).await else {
        return Err(Error::Unavailable(lost));
    };
    let ours = puts().zip(&rows).filter_map(|((slot, put), row)| {
        let row = row.as_ref().filter(|row| is_ours(put, row))?;
        Some((slot, row))
    });
    let ours: Vec<_> = ours.collect();
    if !ours.is_empty() && confirm(backend, partition, &ours).await {
        return Ok(());
    }
    Err(Error::Unavailable(lost))
}

/// Returns whether rows that this commit wrote are durable. The database may return a row before it
/// has stored it safely, for example on other machines or on a disk.
///
/// A [`Change::Check`] is not enough. It writes nothing, so a database has nothing to wait for:
/// Redis would ask its replicas about an older write, and Postgres does not wait for its standby if
/// a transaction wrote nothing. So each row is replaced by itself, and the response to that commit
/// decides. It writes the ciphertext that was just read. If the row is sealed under another key at
/// this moment, the older ciphertext is restored. It can still be opened: its key was the primary
/// moments ago, and no key is destroyed while a row needs it.
async fn confirm<B: Backend + ?Sized>(
    backend: &B,
    partition: &Partition,
    rows: &[(&Slot, &Row)],
) -> bool {
    let over_itself = |(slot, row): &(&Slot, &Row)| Change::Put {
        slot: (*slot).clone(),
        row: (*row).clone(),
        expect: Expect::Version(row.version),
    };
    let changes: Vec<_> = rows.iter().map(over_itself).collect();
    for _ in 0..CONFIRMATIONS {
        match backend.commit(partition, &changes).await {
            Ok(()) => return true,
            // This response may be lost too.
            Err(Error::Unavailable(_)) => {}
            Err(_) => return false,
        }
    }
    false
}

/// How often rows are confirmed after a lost response. If three responses in a row are lost, the
/// database is down.
const CONFIRMATIONS: usize = 2;
