//! Commits without a `Clear`.

use super::claim::{ROUNDS, outwait};
use super::item::{self, CLAIM, Claim, Stored};
use super::refusal::{Unmet, pause};
use super::table::Table;
use super::write::{Outcome, Write};
use crate::backend::{Change, Error, Expect, Partition, Slot};

pub(super) async fn commit(
    table: &Table,
    partition: &Partition,
    changes: &[Change],
) -> Result<(), Error> {
    let mut writes: Vec<_> = changes
        .iter()
        .filter_map(|change| expected(partition, change))
        .collect();
    // A process that clears the partition knows only the rows that existed when it made its claim.
    // No new row may appear until it is done.
    if changes.iter().any(may_create) {
        writes.push(Write::check(partition, CLAIM).unless_pending());
    }
    match table.write(&writes).await? {
        Outcome::Written => Ok(()),
        Outcome::Unmet(unmet) => {
            for unmet in &unmet {
                // The last write may be the check of the claim, which is not a change.
                if let Some(change) = changes.get(unmet.at)
                    && conflicts(change, unmet)?
                {
                    return Err(Error::Conflict);
                }
            }
            commit_over_marks(table, partition, changes).await
        }
    }
}

/// Commits if a row has marks or the partition is claimed. Reads the current rows, decides, and
/// writes only if they are unchanged.
async fn commit_over_marks(
    table: &Table,
    partition: &Partition,
    changes: &[Change],
) -> Result<(), Error> {
    let slots: Vec<&Slot> = changes.iter().filter_map(Change::slot).collect();
    for round in 0..ROUNDS {
        let (claim, rows) = table.claim_and_rows(partition, &slots).await?;
        if let Claim::Pending(id) = claim {
            outwait(table, partition, id).await?;
            continue;
        }
        let mut writes = vec![Write::check(partition, CLAIM).if_claim(claim)];
        for (change, stored) in changes.iter().zip(rows) {
            writes.extend(as_found(partition, change, stored.as_ref()));
            let standing = stored.and_then(|stored| stored.standing(claim));
            if !change.allows(standing.map(|row| row.version)) {
                return Err(Error::Conflict);
            }
        }
        if let Outcome::Written = table.write(&writes).await? {
            return Ok(());
        }
        pause(round).await;
    }
    Err(Error::Unavailable(
        "other processes changed the partition during every attempt to commit; try again".into(),
    ))
}

/// Returns a change as a write that is applied only if its expectation certainly holds. Where a
/// mark makes that uncertain, the write is not applied.
fn expected(partition: &Partition, change: &Change) -> Option<Write> {
    let write = Write::of(partition, change)?;
    Some(match (change.expects(), change) {
        (Expect::Absent, _) => write.if_absent(),
        (Expect::Version(version), _) => write.if_version(version).if_unmarked(),
        (Expect::Any, Change::Delete { .. }) => write.if_unmarked(),
        (Expect::Any, _) => write,
    })
}

/// Returns a change as a write that is applied only if the slot has not changed since it was read.
fn as_found(partition: &Partition, change: &Change, found: Option<&Stored>) -> Option<Write> {
    let write = Write::of(partition, change)?;
    Some(match found {
        Some(stored) => write.if_version(stored.row.version),
        None => write.if_absent(),
    })
}

/// Returns whether this change may create a row.
fn may_create(change: &Change) -> bool {
    matches!(
        change,
        Change::Put {
            expect: Expect::Absent | Expect::Any,
            ..
        }
    )
}

/// Returns whether the expectation certainly does not hold, for a change whose condition was not
/// met. A row with marks may exist, or may be cleared but not yet deleted.
fn conflicts(change: &Change, unmet: &Unmet) -> Result<bool, Error> {
    let Some(found) = &unmet.item else {
        return Ok(!change.allows(None));
    };
    let may_be_cleared = !item::marks(found)?.is_empty();
    let allowed =
        change.allows(Some(item::version(found)?)) || may_be_cleared && change.allows(None);
    Ok(!allowed)
}
