//! Lets one commit per partition run at a time.
//!
//! A commit that waits for a locked row holds a connection of the pool. Without this limit, the
//! callers of one locked tenant could hold all connections, and no other tenant could be served.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::backend::Partition;

/// The partitions that commit now in this process.
#[derive(Default)]
pub(super) struct PartitionLocks(Mutex<HashMap<Partition, Arc<tokio::sync::Mutex<()>>>>);

/// The right to commit to one partition. Dropping it lets the next commit run.
pub(super) struct PartitionLock<'a> {
    // Dropped before `_entry`, which removes the lock if nobody else uses it.
    _guard: OwnedMutexGuard<()>,
    _entry: Entry<'a>,
}

struct Entry<'a> {
    locks: &'a PartitionLocks,
    partition: &'a Partition,
}

impl PartitionLocks {
    /// Waits until no other commit to this partition runs. Calls are served in the order in which
    /// they came.
    pub(super) async fn lock<'a>(&'a self, partition: &'a Partition) -> PartitionLock<'a> {
        let lock = Arc::clone(self.locks().entry(partition.clone()).or_default());
        let entry = Entry {
            locks: self,
            partition,
        };
        PartitionLock {
            _guard: lock.lock_owned().await,
            _entry: entry,
        }
    }

    fn locks(&self) -> MutexGuard<'_, HashMap<Partition, Arc<tokio::sync::Mutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let mut locks = self.locks.locks();
        let lock = locks.get(self.partition);
        // The map itself has one reference.
        if lock.is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(self.partition);
        }
    }
}

impl fmt::Debug for PartitionLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartitionLocks({})", self.locks().len())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn partition(name: &str) -> Partition {
        Partition::new(name).expect("a partition")
    }

    #[tokio::test]
    async fn one_commit_of_a_partition_runs_at_a_time_and_none_waits_for_another_partition() {
        let (locks, a, b) = (
            PartitionLocks::default(),
            partition("1.2/T1"),
            partition("1.2/T2"),
        );
        let first = locks.lock(&a).await;
        assert!(locks.lock(&a).now_or_never().is_none());
        assert!(locks.lock(&b).now_or_never().is_some());
        drop(first);
        assert!(locks.lock(&a).now_or_never().is_some());
    }

    #[tokio::test]
    async fn nothing_is_kept_of_a_partition_that_nobody_commits_to() {
        let (locks, a) = (PartitionLocks::default(), partition("1.2/T1"));
        let first = locks.lock(&a).await;
        let mut given_up = Box::pin(locks.lock(&a));
        assert!((&mut given_up).now_or_never().is_none());
        drop(first);
        assert_eq!(locks.locks().len(), 1, "the second call was let through");
        drop(given_up);
        assert!(locks.locks().is_empty());
    }
}
