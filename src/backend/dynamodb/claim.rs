//! The claim on a partition that is being cleared: waiting for it, releasing it, and finishing what
//! another process left. The protocol is described in the module above.

use super::item::{CLAIM, Claim, ClearId};
use super::refusal::pause;
use super::table::{Table, for_each};
use super::write::{Outcome, Write};
use crate::backend::{Error, Partition};

/// Takes back our claim. `false` if it is gone, or no longer pending.
pub(super) async fn release(
    table: &Table,
    partition: &Partition,
    id: ClearId,
) -> Result<bool, Error> {
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
    let left = rows.iter().filter(|row| row.marks.contains(&id));
    remove(table, partition, left.map(|row| row.name.as_str()), id).await
}

/// Removes these rows, which are all that bear the mark, and then the claim that says that they
/// do not stand. Never the other way round.
pub(super) async fn remove(
    table: &Table,
    partition: &Partition,
    names: impl IntoIterator<Item = &str>,
    id: ClearId,
) -> Result<(), Error> {
    let deletes = names
        .into_iter()
        .map(|name| Write::delete(partition, name).if_marked(id))
        .collect();
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
