//! An operator's process that is killed, or loses a response, at each commit of a rotation.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use slack_installs::backend::Error as BackendError;
use slack_installs::{KeyChangeError, KeyState};

use super::phases::{World, key_row, keys_of, primary_of, try_reseal};
use super::*;
use crate::support::hooked::{Call, Hooked, Hooks, lost};

/// How the operator's commit fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Way {
    /// The process is killed before the commit.
    KilledBefore,
    /// The process is killed after the commit, before its response.
    KilledAfter,
    /// The commit is not applied, and the process goes on.
    LostCommit,
    /// The commit is applied, its response is lost, and the process goes on.
    LostResponse,
}

/// Fails the commit of this number, counted from 0.
pub(super) struct Failing {
    commits: AtomicUsize,
    nth: usize,
    way: Way,
}

impl Failing {
    fn is_dead(&self, commits: usize) -> bool {
        matches!(self.way, Way::KilledBefore | Way::KilledAfter) && commits > self.nth
    }
}

#[async_trait]
impl Hooks for Failing {
    async fn before(&self, call: Call<'_>) -> Result<(), BackendError> {
        let Call::Commit(_) = call else {
            // A killed process makes no other call.
            let commits = self.commits.load(Ordering::SeqCst);
            return if self.is_dead(commits) {
                Err(lost())
            } else {
                Ok(())
            };
        };
        let number = self.commits.fetch_add(1, Ordering::SeqCst);
        let fails = matches!(self.way, Way::KilledBefore | Way::LostCommit) && number == self.nth;
        if fails || self.is_dead(number) {
            return Err(lost());
        }
        Ok(())
    }

    async fn after(&self, call: Call<'_>) -> Result<(), BackendError> {
        let number = self.commits.load(Ordering::SeqCst);
        let loses = matches!(self.way, Way::KilledAfter | Way::LostResponse);
        if loses && number == self.nth + 1 && matches!(call, Call::Commit(_)) {
            return Err(lost());
        }
        Ok(())
    }
}

/// Returns a backend whose commit of this number fails in this way.
pub(super) fn failing(db: &Db, nth: usize, way: Way) -> Hooked<Failing> {
    let commits = AtomicUsize::new(0);
    Hooked::over(Arc::clone(&db.backend), Failing { commits, nth, way })
}

/// Rotates the first key, from wherever an earlier operator stopped.
async fn rotate<B: backend::Backend>(
    store: &EncryptedStore<B>,
    first: slack_installs::KeyId,
) -> Result<(), KeyChangeError> {
    let keys = store.keys();
    let listed = keys.list().await?.keys;
    let primary = listed.iter().find(|key| key.state == KeyState::Primary);
    if primary.is_some_and(|key| key.id == first) {
        let added = listed.iter().find(|key| key.state == KeyState::Distributed);
        let new = match added {
            Some(key) => key.id,
            None => keys.add().await?,
        };
        keys.promote(new, true).await?;
    }
    tokio::time::sleep(Duration::from_secs(31 * 60)).await;
    try_reseal(store).await?;
    keys.destroy(first).await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_rotation_that_fails_at_any_commit_is_finished_by_the_next_process() {
    use Way::{KilledAfter, KilledBefore, LostCommit, LostResponse};
    for way in [KilledBefore, KilledAfter, LostCommit, LostResponse] {
        let mut was_interrupted = 0;
        for nth in 0.. {
            let world = World::new();
            let app = world.process().await;
            for tenant in ["T1", "T2", "T3"] {
                install(&app, tenant).await;
            }
            let first = primary_of(&app).await;
            let backend = failing(&world.db, nth, way);
            let operator = world.process_over(backend.clone(), local()).await;
            let what = format!("{way:?} {nth}");
            let interrupted = rotate(&operator, first).await.is_err();
            was_interrupted += usize::from(interrupted);
            // The app runs on, whatever the operator did.
            for tenant in ["T1", "T2", "T3"] {
                assert!(reads(&app, tenant).await, "{what}");
            }
            install(&app, "T2").await;

            let next = world.process().await;
            rotate(&next, first).await.expect(&what);
            let keys = keys_of(&next).await;
            assert_eq!(keys.len(), 1, "{what}: {keys:?}");
            assert_ne!(keys[0].id, first, "{what}");
            let expected = [key_row(keys[0].id), "manifest".to_owned()];
            assert_eq!(slots(&world.db).await, expected, "{what}");
            for reader in [&app, &next, &world.process().await] {
                for tenant in ["T1", "T2", "T3"] {
                    assert!(reads(reader, tenant).await, "{what}");
                }
            }
            let report = next.verify(None, 100).await.expect("available");
            assert_eq!((report.unreadable, report.without_key), (vec![], vec![]));
            if backend.commits.load(Ordering::SeqCst) <= nth {
                break;
            }
        }
        // Add, promote, six rows and destroy.
        let commits = if way == LostResponse { 6 } else { 9 };
        assert!(was_interrupted >= commits, "{way:?}: {was_interrupted}");
    }
}

/// The operator's tool may be stopped at any `await`, also between two commits.
#[tokio::test(start_paused = true)]
async fn a_rotation_that_is_dropped_at_any_moment_is_finished_by_the_next_call() {
    for millis in (0..2_000).step_by(50) {
        let world = World::new();
        let app = world.process().await;
        for tenant in ["T1", "T2"] {
            install(&app, tenant).await;
        }
        let first = primary_of(&app).await;
        let operator = world.process_by(Remote::new()).await;
        let keys = operator.keys();
        let phases = async {
            let new = keys.add().await?;
            keys.promote(new, true).await?;
            try_reseal(&operator).await
        };
        let _ = tokio::time::timeout(Duration::from_millis(millis), phases).await;
        rotate(&operator, first).await.expect("finished");
        assert_eq!(keys_of(&operator).await.len(), 1);
        assert!(reads(&app, "T1").await && reads(&world.process().await, "T2").await);
    }
}
