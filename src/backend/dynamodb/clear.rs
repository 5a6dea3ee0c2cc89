//! Commits with a `Clear`: any number of rows at one moment, though a transaction of DynamoDB's
//! takes a hundred. The protocol is described in the module above.

use super::commit::write;
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
                // Saves the next one the wait. If the rows are cleared all the same, the claim is
                // no longer pending, and stays.
                let _ = release(table, partition, id).await;
                return Err(error);
            }
        }
        pause(round).await;
    }
    Err(Error::Unavailable(
        "the partition was changed by others again and again".into(),
    ))
}

enum Cleared {
    Done,
    /// The claim was taken away, or a row moved.
    Overtaken,
    /// An expectation does not hold, as long as the claim was ours throughout.
    Refused,
}

/// Claims the partition. `false` if it was not free; by now it may be.
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
    let put = |name: &str| {
        let puts = changes
            .iter()
            .filter(|change| matches!(change, Change::Put { .. }));
        puts.filter_map(Change::slot)
            .any(|put| put.as_str() == name)
    };
    let left: Vec<_> = rows
        .iter()
        .map(|row| row.name.as_str())
        .filter(|name| !put(name))
        .collect();
    let settled = match left.is_empty() {
        true => Write::delete(partition, CLAIM),
        false => Write::settle(partition),
    };
    let mut writes = vec![settled.if_claim(Claim::Pending(id))];
    for change in changes
        .iter()
        .filter(|change| matches!(change, Change::Put { .. }))
    {
        let name = change.slot().map(Slot::as_str);
        let marked = rows.iter().any(|row| Some(row.name.as_str()) == name);
        writes.extend(write(partition, change).map(|write| match marked {
            true => write.if_marked(id),
            false => write.if_absent(),
        }));
    }
    // The moment at which all of it happens.
    if let Outcome::Unmet(_) = table.write(&writes).await? {
        return Ok(Cleared::Overtaken);
    }
    if !left.is_empty()
        && let Err(error) = remove(table, partition, left, id).await
    {
        tracing::warn!(%partition, %error, "cleared rows are left to be removed by others");
    }
    Ok(Cleared::Done)
}

/// Marks all rows of a partition that is claimed, and answers them. `None` if an expectation
/// does not hold.
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
            let is_odd = listed.is_some_and(|row| row.version.is_none());
            if is_odd && change.expects() != Expect::Any {
                return Err(malformed("a row that is expected cannot be read".into()));
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
                None => mark.if_odd(),
            });
        }
        let marked = for_each(marks, |mark| {
            let table = table.clone();
            async move { table.write(&[mark]).await }
        });
        // A row that has moved is looked at again.
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
        "rows were changed by others again and again".into(),
    ))
}

/// Takes back our claim. `false` if it is gone, or no longer pending.
async fn release(table: &Table, partition: &Partition, id: ClearId) -> Result<bool, Error> {
    let claim = Write::delete(partition, CLAIM).if_claim(Claim::Pending(id));
    Ok(matches!(table.write(&[claim]).await?, Outcome::Written))
}

/// Waits until somebody has cleared the partition. Takes the claim away from one who takes too
/// long over it: a process that ended in the middle.
pub(super) async fn outwait(
    table: &Table,
    partition: &Partition,
    id: ClearId,
) -> Result<(), Error> {
    for _ in 0..PATIENCE {
        pause(POLL).await;
        if table.claim(partition).await? != Claim::Pending(id) {
            return Ok(());
        }
    }
    release(table, partition, id).await.map(drop)
}

/// Finishes what somebody left behind who has cleared a partition: no one else may ever come by,
/// and what is cleared is to be gone.
pub(super) async fn finish(table: &Table, partition: &Partition, claim: Claim) {
    if let Claim::Done(id) = claim
        && let Err(error) = sweep(table, partition, id).await
    {
        tracing::warn!(%partition, %error, "cleared rows are left as found");
    }
}

/// Removes the rows that somebody has cleared and left, and the claim.
pub(super) async fn sweep(table: &Table, partition: &Partition, id: ClearId) -> Result<(), Error> {
    let rows = table.list(partition).await?;
    let left = rows
        .iter()
        .filter(|row| row.marks.contains(&id))
        .map(|row| row.name.as_str())
        .collect();
    remove(table, partition, left, id).await
}

/// Removes these rows, which are all that bear the mark, and then the claim that says that they
/// do not stand. Never the other way round.
async fn remove(
    table: &Table,
    partition: &Partition,
    names: Vec<&str>,
    id: ClearId,
) -> Result<(), Error> {
    let mut deletes = Vec::new();
    for name in names {
        deletes.push(Write::delete(partition, name).if_marked(id));
    }
    for_each(deletes, |delete| {
        let table = table.clone();
        async move { table.write(&[delete]).await }
    })
    .await?;
    let claim = Write::delete(partition, CLAIM).if_claim(Claim::Done(id));
    table.write(&[claim]).await.map(drop)
}

/// How often a claim is looked at before it is taken away: with the pauses, about three seconds,
/// in which a partition of thousands of rows is cleared.
const PATIENCE: u32 = 40;

/// Which pause is between two looks: up to 160 ms.
const POLL: u32 = 3;

/// How often something starts over that others got in the way of. The pauses grow to a second,
/// so nobody gets here but where a partition is changed without an end.
pub(super) const ROUNDS: u32 = 32;
