//! One commit, and whether it was applied if its response is lost.

use crate::backend::{Backend, Change, Error, Expect, Partition, Row, Slot};

/// Commits these changes. After [`Error::Conflict`], nothing of them was applied.
///
/// After [`Error::Unavailable`], a part of the rows may have been written by this commit and
/// replaced or deleted since. To write them again could bring back what another caller deleted.
pub(super) async fn commit<B: Backend + ?Sized>(
    backend: &B,
    partition: &Partition,
    changes: &[Change],
) -> Result<(), Error> {
    let lost = match backend.commit(partition, changes).await {
        Err(Error::Unavailable(lost)) => lost,
        outcome => return outcome,
    };
    let puts = || {
        changes.iter().filter_map(|change| match change {
            Change::Put { slot, row, .. } => Some((change, slot, row)),
            _ => None,
        })
    };
    let slots: Vec<_> = puts().map(|(_, slot, _)| slot.clone()).collect();
    let Ok(rows) = backend.read(partition, &slots).await else {
        return Err(Error::Unavailable(lost));
    };
    // A row that we wrote has the version that we minted.
    let ours = puts()
        .zip(&rows)
        .filter(|((_, _, put), row)| row.as_ref() == Some(*put));
    let ours: Vec<_> = ours.map(|((_, slot, row), _)| (slot, row)).collect();
    let is_unchanged = puts().zip(&rows).all(|((put, ..), row)| {
        let version = row.as_ref().map(|row| row.version);
        put.allows(version)
    });
    if !ours.is_empty() && confirm(backend, partition, &ours).await {
        return Ok(());
    }
    if ours.is_empty() && is_unchanged && !slots.is_empty() {
        return Err(Error::Conflict);
    }
    Err(Error::Unavailable(lost))
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

/// How often rows whose response was lost are confirmed. Losing three responses in a row is an
/// outage.
const CONFIRMATIONS: usize = 2;
