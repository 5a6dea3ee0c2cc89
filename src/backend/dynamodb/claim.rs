//! The claim on a partition that is being cleared: how a process waits for it, releases it, and
//! finishes the work of another process. The parent module describes the protocol.

use super::item::{CLAIM, Claim, ClearId};
use super::refusal::pause;
use super::table::{Table, for_each};
use super::write::{Outcome, Write};
use crate::backend::{Error, Partition};
use crate::error_chain::error_chain;

/// Deletes our claim. Returns `false` if it no longer exists or is no longer pending.
pub(super) async fn release(
    table: &Table,
    partition: &Partition,
    id: ClearId,
) -> Result<bool, Error> {
    let claim = Write::delete(partition, CLAIM).if_claim(Claim::Pending(id));
    Ok(matches!(table.write(&[claim]).await?, Outcome::Written))
}

/// Waits until another process has cleared the partition. If that takes too long, deletes the
/// claim, because the process probably ended midway.
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

/// Finishes a clear that another process left unfinished, because otherwise the cleared rows might
/// stay in the table forever.
pub(super) async fn finish(table: &Table, partition: &Partition, claim: Claim) {
    if let Claim::Done(id) = claim {
        warn_if_left(partition, sweep(table, partition, id).await);
    }
}

/// Logs that cleared rows could not be deleted.
pub(super) fn warn_if_left(partition: &Partition, removed: Result<(), Error>) {
    if let Err(error) = removed {
        tracing::warn!(
            %partition,
            error = error_chain(&error),
            "cannot delete cleared rows yet; readers ignore them, and a later call deletes them"
        );
    }
}

/// Deletes the cleared rows that another process left, and then the claim.
pub(super) async fn sweep(table: &Table, partition: &Partition, id: ClearId) -> Result<(), Error> {
    let rows = table.list(partition).await?;
    let left = rows.iter().filter(|row| row.marks.contains(&id));
    remove(table, partition, left.map(|row| row.name.as_str()), id).await
}

/// Deletes these rows, which must be all rows with the mark, and then the claim. The claim must be
/// last: it says that the rows no longer exist.
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

/// How often a claim is read before it is deleted. With the pauses that is about three seconds,
/// enough to clear a partition of thousands of rows.
const PATIENCE: u32 = 40;

/// The attempt number of the pause between two reads: up to 160 ms.
const POLL: u32 = 3;

/// How often an operation starts again after other processes interfered. The pauses grow to a
/// second, so only a partition that changes all the time reaches this limit.
pub(super) const ROUNDS: u32 = 32;
