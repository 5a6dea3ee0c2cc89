//! Limits the connections that commits of partitions in trouble hold.
//!
//! A commit that waits for a locked row holds a connection of the pool. Without a limit, the callers
//! of one locked tenant could hold all connections, and no other tenant could be served. So one
//! commit per partition runs at a time, and all partitions in trouble share a few.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, Semaphore};
use tokio::time::{Instant, timeout};

use crate::backend::{Error, Partition};

/// The partitions that commit now in this process, and those in trouble.
pub(super) struct PartitionLocks {
    state: Mutex<State>,
    /// The places of all partitions in trouble.
    lane: Semaphore,
}

#[derive(Default)]
struct State {
    locks: HashMap<Partition, Arc<tokio::sync::Mutex<()>>>,
    /// When a commit last got no response in time.
    troubled: HashMap<Partition, Instant>,
    /// When a commit of any partition last got a response.
    responded: Option<Instant>,
}

/// The right to commit to one partition. Dropping it lets the next commit run.
struct PartitionLock<'a> {
    // Dropped before `_entry`, which removes the lock if nobody else uses it.
    _guard: OwnedMutexGuard<()>,
    _entry: Entry<'a>,
}

struct Entry<'a> {
    locks: &'a PartitionLocks,
    partition: &'a Partition,
}

/// A commit that runs. Its end is noted, also if it is dropped.
struct Running<'a> {
    locks: &'a PartitionLocks,
    partition: &'a Partition,
    begun: Instant,
    has_response: bool,
}

impl Default for PartitionLocks {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            lane: Semaphore::new(LANE),
        }
    }
}

impl PartitionLocks {
    /// Makes this commit when no other commit to the partition runs. Calls are served in the order
    /// in which they came.
    ///
    /// # Errors
    ///
    /// The commit's error. [`Error::Unavailable`] if the partition is in trouble, and the others in
    /// trouble leave it no place within [`PATIENCE`]. The commit is then not made.
    pub(super) async fn run<T: Send>(
        &self,
        partition: &Partition,
        commit: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let _lock = self.lock(partition).await;
        let _place = if self.is_troubled(partition) {
            let place = timeout(PATIENCE, self.lane.acquire()).await;
            Some(place.map_err(|_| Error::Unavailable(NO_PLACE.into()))?)
        } else {
            None
        };
        let mut running = Running {
            locks: self,
            partition,
            begun: Instant::now(),
            has_response: false,
        };
        let outcome = commit.await;
        running.has_response = !matches!(outcome, Err(Error::Unavailable(_)));
        outcome
    }

    async fn lock<'a>(&'a self, partition: &'a Partition) -> PartitionLock<'a> {
        let lock = Arc::clone(self.state().locks.entry(partition.clone()).or_default());
        let entry = Entry {
            locks: self,
            partition,
        };
        PartitionLock {
            _guard: lock.lock_owned().await,
            _entry: entry,
        }
    }

    /// Returns whether this partition got no response, although another one got one later. If none
    /// gets a response, the database is down, and no partition is held back.
    fn is_troubled(&self, partition: &Partition) -> bool {
        let state = self.state();
        let since = state.troubled.get(partition);
        since.is_some_and(|since| since.elapsed() < FORGOTTEN && state.responded > Some(*since))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let locks = &mut self.locks.state().locks;
        let lock = locks.get(self.partition);
        // The map itself has one reference.
        if lock.is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(self.partition);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let (now, mut state) = (Instant::now(), self.locks.state());
        if self.has_response {
            state.responded = Some(now);
            state.troubled.remove(self.partition);
        } else if now - self.begun >= SLOW {
            let is_known = |_: &Partition, since: &mut Instant| now - *since < FORGOTTEN;
            state.troubled.retain(is_known);
            state.troubled.insert(self.partition.clone(), now);
        }
    }
}

impl fmt::Debug for PartitionLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartitionLocks({})", self.state().locks.len())
    }
}

/// How many commits all partitions in trouble make at a time: a small part of the connections that
/// a process opens by default.
const LANE: usize = 2;

/// How long a commit of a partition in trouble waits for its place. A database's own timeouts are
/// about as long.
const PATIENCE: Duration = Duration::from_secs(2);

/// A commit that fails sooner held its connection for so short a time that it cost the others little.
const SLOW: Duration = Duration::from_millis(200);

/// How long a partition counts as in trouble if nobody commits to it.
const FORGOTTEN: Duration = Duration::from_secs(60);

const NO_PLACE: &str =
    "the tenant's last commit got no response, and other tenants' too: try again";

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
        assert_eq!(
            locks.state().locks.len(),
            1,
            "the second call was let through"
        );
        drop(given_up);
        assert!(locks.state().locks.is_empty());
    }

    /// A pool of ten connections. Commits of the first 20 partitions hold theirs for 2 s, and fail.
    async fn commits_of(locked: usize, length: Duration) -> usize {
        let locks = Arc::new(PartitionLocks::default());
        let pool = Arc::new(Semaphore::new(10));
        let until = Instant::now() + length;
        let tasks: Vec<_> = (0..100)
            .map(|number| {
                let (locks, pool) = (Arc::clone(&locks), Arc::clone(&pool));
                tokio::spawn(async move {
                    let partition = partition(&format!("1.2/T{number}"));
                    let mut done = 0;
                    while Instant::now() < until {
                        let outcome = locks.run(&partition, async {
                            let _connection = pool.acquire().await.expect("the pool is open");
                            if number < locked {
                                tokio::time::sleep(Duration::from_secs(2)).await;
                                return Err(Error::Unavailable("the row is locked".into()));
                            }
                            tokio::time::sleep(Duration::from_millis(1)).await;
                            Ok(())
                        });
                        done += usize::from(outcome.await.is_ok());
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    if number < 20 { 0 } else { done }
                })
            })
            .collect();
        let mut done = 0;
        for task in tasks {
            done += task.await.expect("no panic");
        }
        done
    }

    #[tokio::test(start_paused = true)]
    async fn twenty_locked_tenants_leave_the_others_their_throughput() {
        let length = Duration::from_secs(60);
        let without = commits_of(0, length).await;
        for locked in [1, 20] {
            let with = commits_of(locked, length).await;
            assert!(with * 10 > without * 8, "{with} instead of {without}");
        }
    }

    fn unavailable<T>() -> Result<T, Error> {
        Err(Error::Unavailable("no response".into()))
    }

    /// Makes this partition one in trouble.
    async fn trouble(locks: &PartitionLocks, partition: &Partition) {
        let slow = async {
            tokio::time::sleep(SLOW).await;
            unavailable::<()>()
        };
        let outcome = locks.run(partition, slow).await;
        assert!(outcome.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn partitions_in_trouble_share_two_places_until_they_get_a_response() {
        let locks = PartitionLocks::default();
        let names = ["1.2/T1", "1.2/T2", "1.2/T3", "1.2/T4"].map(partition);
        for name in &names[..3] {
            trouble(&locks, name).await;
        }
        tokio::time::advance(Duration::from_millis(1)).await;
        let well = locks.run(&names[3], async { Ok(()) }).await;
        well.expect("the database is well");
        let hang = |name| Box::pin(locks.run(name, std::future::pending::<Result<(), Error>>()));
        let (mut one, mut two) = (hang(&names[0]), hang(&names[1]));
        assert!((&mut one).now_or_never().is_none() && (&mut two).now_or_never().is_none());
        let begun = Instant::now();
        let third = locks.run(&names[2], async { Ok(()) }).await;
        assert!(matches!(third, Err(Error::Unavailable(_))));
        assert_eq!(begun.elapsed(), PATIENCE);
        let other = locks.run(&names[3], async { Ok(()) }).await;
        other.expect("it has no trouble");
        drop(one);
        tokio::time::advance(Duration::from_millis(1)).await;
        let third = locks.run(&names[2], async { Ok(()) }).await;
        third.expect("there is a place");
        assert!(!locks.is_troubled(&names[2]));
        drop(two);
        assert!(
            locks.is_troubled(&names[0]),
            "a dropped commit got no response"
        );
        tokio::time::advance(FORGOTTEN).await;
        assert!(!locks.is_troubled(&names[0]));
    }

    #[tokio::test(start_paused = true)]
    async fn if_no_partition_gets_a_response_none_is_held_back() {
        let locks = PartitionLocks::default();
        let names = ["1.2/T1", "1.2/T2", "1.2/T3", "1.2/T4"].map(partition);
        for name in &names {
            trouble(&locks, name).await;
        }
        assert!(!names.iter().any(|name| locks.is_troubled(name)));
        let conflict = locks.run(&names[0], async { Err::<(), _>(Error::Conflict) });
        assert!(conflict.await.is_err());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!locks.is_troubled(&names[0]), "a conflict is a response");
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_fails_at_once_is_no_trouble() {
        let locks = PartitionLocks::default();
        let (a, b) = (partition("1.2/T1"), partition("1.2/T2"));
        assert!(locks.run(&a, async { unavailable::<()>() }).await.is_err());
        tokio::time::advance(Duration::from_millis(1)).await;
        locks.run(&b, async { Ok(()) }).await.expect("it is well");
        assert!(!locks.is_troubled(&a));
    }
}
