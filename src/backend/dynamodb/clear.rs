//! Commits with a `Clear`. Any number of rows is cleared atomically, although a DynamoDB
//! transaction takes a hundred. The parent module describes the protocol.

use std::collections::BTreeSet;

use super::claim::{ROUNDS, outwait, release, remove, sweep, warn_if_left};
use super::item::{CLAIM, Claim, ClearId, claim_item, malformed};
use super::refusal::pause;
use super::table::{Listed, Table, for_each};
use super::write::{Outcome, Write};
use crate::backend::{Change, Error, Expect, Partition, Slot};

pub(super) async fn commit(
    table: &Table,
    partition: &Partition,
    changes: &[Change],
) -> Result<(), Error> {
    let id = ClearId::mint();
    for round in 0..ROUNDS {
        let cleared = match make_claim(table, partition, id).await {
            Ok(true) => clear(table, partition, changes, id).await,
            Ok(false) => Ok(Cleared::Overtaken),
            Err(error) => Err(error),
        };
        match cleared {
            Ok(Cleared::Done) => return Ok(()),
            Ok(Cleared::Refused) if release(table, partition, id).await? => {
                return Err(Error::Conflict);
            }
            Ok(Cleared::Refused | Cleared::Overtaken) => {}
            Err(error) => {
                // Releases the claim, so that the next process does not wait for it. If the rows
                // were cleared in spite of the error, the claim is no longer pending, and is not
                // released.
                let _ = release(table, partition, id).await;
                return Err(error);
            }
        }
        pause(round).await;
    }
    Err(Error::Unavailable(
        "other processes changed the partition during every attempt to clear it; try again".into(),
    ))
}

enum Cleared {
    Done,
    /// The claim was deleted, or a row changed.
    Overtaken,
    /// An expectation does not hold. This is certain only if the claim was ours throughout.
    Refused,
}

/// Claims the partition. Returns `false` if another claim existed; that claim may be deleted
/// already.
async fn make_claim(table: &Table, partition: &Partition, id: ClearId) -> Result<bool, Error> {
    let claim = Write::put(partition, CLAIM, claim_item(partition, id)).if_absent();
    if let Outcome::Written = table.write(&[claim]).await? {
        return Ok(true);
    }
    match table.claim(partition).await? {
        Claim::None => {}
        Claim::Pending(other) => outwait(table, partition, other).await?,
        Claim::Done(other) => sweep(table, partition, other).await?,
    }
    Ok(false)
}

/// Clears a partition that is claimed.
async fn clear(
    table: &Table,
    partition: &Partition,
    changes: &[Change],
    id: ClearId,
) -> Result<Cleared, Error> {
    let Some(rows) = mark(table, partition, changes, id).await? else {
        return Ok(Cleared::Refused);
    };
    let mut left: BTreeSet<_> = rows.iter().map(|row| row.name.as_str()).collect();
    let mut writes = Vec::new();
    for change in changes {
        if let Change::Put { slot, .. } = change
            && let Some(put) = Write::of(partition, change)
        {
            let marked = left.remove(slot.as_str());
            writes.push(if marked {
                put.if_marked(id)
            } else {
                put.if_absent()
            });
        }
    }
    let settled = if left.is_empty() {
        Write::delete(partition, CLAIM)
    } else {
        Write::settle(partition)
    };
    writes.push(settled.if_claim(Claim::Pending(id)));
    // The commit is applied at this moment.
    if let Outcome::Unmet(_) = table.write(&writes).await? {
        return Ok(Cleared::Overtaken);
    }
    if !left.is_empty() {
        warn_if_left(partition, remove(table, partition, left, id).await);
    }
    Ok(Cleared::Done)
}

/// Marks all rows of a claimed partition and returns them. Returns `None` if an expectation does
/// not hold.
async fn mark(
    table: &Table,
    partition: &Partition,
    changes: &[Change],
    id: ClearId,
) -> Result<Option<Vec<Listed>>, Error> {
    for round in 0..ROUNDS {
        let rows = table.list(partition).await?;
        for change in changes {
            let listed = |slot: &Slot| rows.iter().find(|row| row.name == slot.as_str());
            let listed = change.slot().and_then(listed);
            let is_malformed = listed.is_some_and(|row| row.version.is_none());
            if is_malformed && change.expects() != Expect::Any {
                return Err(malformed(
                    "a row that the commit expects cannot be parsed".into(),
                ));
            }
            if !change.allows(listed.and_then(|row| row.version)) {
                return Ok(None);
            }
        }
        let mut marks = Vec::new();
        for row in rows.iter().filter(|row| !row.marks.contains(&id)) {
            let mark = Write::mark(partition, &row.name, id);
            marks.push(match row.version {
                Some(version) => mark.if_version(version),
                None => mark.if_malformed(),
            });
        }
        let marked = for_each(marks, |mark| {
            let table = table.clone();
            async move { table.write(&[mark]).await }
        });
        // A row that changed is read again.
        if marked
            .await?
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Written))
        {
            return Ok(Some(rows));
        }
        pause(round).await;
    }
    Err(Error::Unavailable(
        "other processes changed the rows during every attempt to mark them; try again".into(),
    ))
}
