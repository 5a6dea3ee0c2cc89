//! Re-seals and destructions that meet other processes: no write is lost on either side.

use std::sync::Mutex;

use async_trait::async_trait;
use slack_installs::backend::{Backend, Error as BackendError};
use slack_installs::store::{Chain, ChainKey, Credential, Departure, LifecycleStore, Mark};
use slack_installs::store::{RotationStore, StoredChain};
use slack_installs::{Delete, Hold, KeyChangeError, KeyId, KeyState};

use super::phases::{World, keys_of, primary_of, promote, reseal, rows_under, try_reseal};
use super::*;
use crate::support::backends::Interrupted;
use crate::support::hooked::{Call, Hooked, Hooks};
use crate::support::installs::rotating;
use crate::support::meddling::{Fate, Meddling};

/// What a process of the app does to T1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Act {
    Delete,
    Hold,
    Purge,
    Refresh,
    Store,
}

const ACTS: [Act; 5] = [Act::Delete, Act::Hold, Act::Purge, Act::Refresh, Act::Store];

async fn act<B: Backend>(store: &EncryptedStore<B>, act: Act) {
    let key = workspace_key("T1");
    match act {
        Act::Delete => {
            assert!(store.delete(&key, &Delete::all()).await.expect("deleted"));
        }
        Act::Hold => {
            let hold = Hold {
                is_on: true,
                reason: "ticket 1".to_owned(),
                at: noon(),
            };
            assert!(store.hold(&key, &hold).await.expect("held"));
        }
        Act::Purge => {
            let (revision, _) = store.glance(&key).await.expect("opens").expect("stored");
            let departure = Departure::new(key, "app_uninstalled", noon());
            let purged = store.purge(&departure, revision, None).await;
            purged.expect("purged");
        }
        Act::Refresh => {
            let refreshed = refresh(store).await.expect("refreshed");
            assert_eq!(refreshed.chain.generation, 1);
        }
        Act::Store => {
            let mut again = in_workspace("T1").with_bot("xoxb-new");
            again.installed_at = noon() + Duration::from_secs(1);
            store.store(&again).await.expect("stored");
        }
    }
}

async fn refresh<B: Backend>(store: &EncryptedStore<B>) -> Option<StoredChain> {
    let chain = ChainKey {
        tenant: workspace_key("T1"),
        credential: Credential::Bot,
    };
    let grant = rotating("xoxe.xoxb-new", "xoxe-new");
    let mut decide = |chain: Option<&Chain>| {
        let mut chain = chain?.clone();
        chain.refresh = grant.refresh_token.as_ref().map(Mark::of);
        chain.generation += 1;
        Some(chain)
    };
    let updated = store.update(&chain, Some(&grant), &mut decide).await;
    updated.expect("updated")
}

/// Asserts that a new process finds what this act leaves.
async fn is_done(world: &World, act: Act, what: &str) {
    let fetched = world
        .process()
        .await
        .fetch(&workspace_key("T1"), None)
        .await;
    let fetched = fetched.expect(what);
    match act {
        Act::Delete | Act::Purge => assert!(fetched.is_none(), "{what}"),
        Act::Hold => assert!(fetched.expect(what).hold.is_some(), "{what}"),
        Act::Refresh => {
            assert_eq!(bot_token(&fetched.expect(what)), Some("xoxe.xoxb-new"));
        }
        Act::Store => assert_eq!(bot_token(&fetched.expect(what)), Some("xoxb-new")),
    }
}

/// T1 with a token that rotates, sealed under a retired key, which is returned.
async fn rotated() -> (World, KeyId) {
    let world = World::new();
    let store = world.process().await;
    let mut installation = in_workspace("T1").with_bot("xoxb-T1");
    installation.bot.as_mut().expect("it was set").grant = rotating("xoxe.xoxb-1", "xoxe-1");
    store.store(&installation).await.expect("stored");
    let [old, _] = promote(&store).await;
    (world, old)
}

/// Re-seals everything that is left, and destroys the key.
async fn finish(world: &World, old: KeyId, what: &str) {
    let store = world.process().await;
    let counts = reseal(&store).await;
    assert_eq!((counts.overtaken, counts.skipped.len()), (0, 0), "{what}");
    assert_eq!(rows_under(&store, old).await, 0, "{what}");
    advance(Duration::from_secs(31 * 60)).await;
    assert!(store.keys().destroy(old).await.expect(what), "{what}");
    let report = store.verify(None, 100).await.expect("available");
    assert_eq!(
        (report.unreadable, report.without_key),
        (vec![], vec![]),
        "{what}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_row_that_changes_before_its_re_seal_is_committed_keeps_the_change() {
    // The rows of the bot and of the installation.
    for nth in 0..2 {
        for it in ACTS {
            let (world, old) = rotated().await;
            let backend = Meddling::new(Arc::clone(&world.db.backend));
            let operator = world.process_over(backend.clone(), local()).await;
            let app = world.process().await;
            let then = Box::pin(async move { act(&app, it).await });
            let untouched = || Fate::Overtaken(Box::pin(async {}));
            let before = (0..nth).map(|_| untouched());
            backend.next(before.chain([Fate::Overtaken(then)]));
            let what = format!("{it:?} before commit {nth}");
            let counts = reseal(&operator).await;
            assert_eq!(counts.skipped, [""; 0], "{what}");
            is_done(&world, it, &what).await;
            finish(&world, old, &what).await;
            is_done(&world, it, &what).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_rows_are_re_sealed_between_its_read_and_its_write_is_made() {
    for it in ACTS {
        let (world, old) = rotated().await;
        let backend = Interrupted::new(Arc::clone(&world.db.backend));
        let app = world.process_over(backend.clone(), local()).await;
        // The manifest is read here, so that the next read is one of the tenant.
        drop(app.fetch(&workspace_key("T1"), None).await.expect("opens"));
        let operator = world.process().await;
        backend.meanwhile(move || {
            tokio::spawn(async move {
                assert_eq!(reseal(&operator).await.resealed, 2);
            })
        });
        act(&app, it).await;
        let what = format!("{it:?}");
        is_done(&world, it, &what).await;
        finish(&world, old, &what).await;
        is_done(&world, it, &what).await;
    }
}

/// The written row has its version, but no longer its ciphertext.
#[tokio::test(start_paused = true)]
async fn a_lost_response_is_found_out_although_the_rows_were_re_sealed_meanwhile() {
    for it in ACTS {
        for done in [true, false] {
            let (world, old) = rotated().await;
            let backend = Meddling::new(Arc::clone(&world.db.backend));
            // It seals under the old key, because it has not heard of the new one.
            let app = world.process_over(backend.clone(), local()).await;
            drop(app.fetch(&workspace_key("T1"), None).await.expect("opens"));
            let operator = world.process().await;
            let [second, _] = promote(&operator).await;
            let then = Box::pin(async move { drop(reseal(&operator).await) });
            backend.next([Fate::Lost { done, then }]);
            let what = format!("{it:?}, done: {done}");
            let attempt = tokio::spawn({
                let app = app.clone();
                async move { act(&app, it).await }
            });
            let succeeded = attempt.await.is_ok();
            // A deletion writes no row that could be found again.
            let is_found_out = done && !matches!(it, Act::Delete);
            if is_found_out && it != Act::Purge {
                assert!(succeeded, "{what}");
            }
            if !done {
                assert!(!succeeded, "{what}");
                act(&app, it).await;
            }
            is_done(&world, it, &what).await;
            for key in [old, second] {
                finish(&world, key, &what).await;
            }
            is_done(&world, it, &what).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_re_seal_whose_response_is_lost_is_repeated_and_finds_the_row_done() {
    for done in [true, false] {
        let (world, old) = rotated().await;
        let backend = Meddling::new(Arc::clone(&world.db.backend));
        let operator = world.process_over(backend.clone(), local()).await;
        let then = Box::pin(async {});
        backend.next([Fate::Lost { done, then }]);
        assert_matches!(
            try_reseal(&operator).await,
            Err(KeyChangeError::Store(Error::Unavailable(_)))
        );
        let counts = reseal(&operator).await;
        assert_eq!(counts.current, usize::from(done), "{counts:?}");
        finish(&world, old, "lost").await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_operators_at_once_lose_nothing_and_end_with_one_key() {
    let world = World::new();
    let app = world.process().await;
    for tenant in ["T1", "T2", "T3", "T4"] {
        install(&app, tenant).await;
    }
    let mut operators = JoinSet::new();
    for _ in 0..2 {
        let operator = world.process_by(Remote::new()).await;
        operators.spawn(async move {
            let keys = operator.keys();
            let new = keys.add().await.expect("added");
            let promoted = keys.promote(new, true).await;
            // The other one may have promoted a newer key first, which retires this one.
            assert_matches!(
                promoted,
                Ok(true) | Err(KeyChangeError::NotDistributed { .. })
            );
            reseal(&operator).await;
        });
    }
    for _ in 0..20 {
        for tenant in ["T1", "T2", "T3", "T4"] {
            install(&app, tenant).await;
            assert!(reads(&app, tenant).await);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    operators.join_all().await;
    tokio::time::sleep(Duration::from_secs(31 * 60)).await;
    let mut operators = JoinSet::new();
    for _ in 0..2 {
        let operator = world.process_by(Remote::new()).await;
        operators.spawn(async move {
            reseal(&operator).await;
            for key in keys_of(&operator).await {
                if key.state != KeyState::Primary {
                    operator.keys().destroy(key.id).await.expect("destroyed");
                }
            }
        });
    }
    operators.join_all().await;
    let fresh = world.process().await;
    assert_eq!(keys_of(&fresh).await.len(), 1);
    for reader in [&app, &fresh] {
        for tenant in ["T1", "T2", "T3", "T4"] {
            assert!(reads(reader, tenant).await);
        }
    }
}

/// Runs something before the nth scan of a page.
struct OnScan(Mutex<Option<(usize, Then)>>);

type Then = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

#[async_trait]
impl Hooks for OnScan {
    async fn after(&self, call: Call<'_>) -> Result<(), BackendError> {
        let Call::Scan(..) = call else {
            return Ok(());
        };
        let then = {
            let mut waiting = self.0.lock().expect("no panic");
            match waiting.take() {
                Some((0, then)) => Some(then),
                other => {
                    *waiting = other.map(|(left, then)| (left - 1, then));
                    None
                }
            }
        };
        if let Some(then) = then {
            then.await;
        }
        Ok(())
    }

    fn longest_page(&self) -> usize {
        2
    }
}

/// The key seals rows as soon as it is promoted.
#[tokio::test(start_paused = true)]
async fn a_key_that_is_promoted_while_it_is_being_destroyed_is_not_destroyed() {
    for page in 0..4 {
        for is_retired_again in [false, true] {
            let world = World::new();
            let app = world.process().await;
            for tenant in ["T1", "T2", "T3", "T4"] {
                install(&app, tenant).await;
            }
            let new = app.keys().add().await.expect("added");
            let other = app.clone();
            let then: Then = Box::pin(async move {
                assert!(other.keys().promote(new, true).await.expect("promoted"));
                install(&other, "T1").await;
                if is_retired_again {
                    other.rotate_data_key().await.expect("rotated");
                }
            });
            let hooks = OnScan(Mutex::new(Some((page, then))));
            let backend = Hooked::over(Arc::clone(&world.db.backend), hooks);
            let operator = world.process_over(backend, local()).await;
            let destroyed = operator.keys().destroy(new).await;
            let what = format!("page {page}, retired: {is_retired_again}");
            if is_retired_again {
                assert_matches!(destroyed, Err(KeyChangeError::TooEarly { .. }), "{what}");
            } else {
                assert_matches!(destroyed, Err(KeyChangeError::NotRetired { .. }), "{what}");
            }
            assert!(reads(&world.process().await, "T1").await, "{what}");
        }
    }
}

/// Another process adds keys all the time, so the destruction gives up and changes nothing.
#[tokio::test(start_paused = true)]
async fn a_destruction_that_is_overtaken_by_other_changes_of_the_keyring_succeeds_or_says_so() {
    for changes in 0..5 {
        let (world, old) = rotated().await;
        let store = world.process().await;
        reseal(&store).await;
        advance(Duration::from_secs(31 * 60)).await;
        let backend = Meddling::new(Arc::clone(&world.db.backend));
        let operator = world.process_over(backend.clone(), local()).await;
        backend.next((0..changes).map(|_| {
            let store = store.clone();
            Fate::Overtaken(Box::pin(async move {
                store.keys().add().await.expect("added");
            }))
        }));
        match operator.keys().destroy(old).await {
            Ok(true) => assert!(changes < 3),
            Err(KeyChangeError::Keyring(error)) => {
                assert!(changes >= 3 && error.is_transient(), "{error:?}");
                assert!(keys_of(&store).await.iter().any(|key| key.id == old));
            }
            other => panic!("{changes}: {other:?}"),
        }
        assert_ne!(primary_of(&store).await, old);
        is_readable(&world).await;
    }
}

async fn is_readable(world: &World) {
    let fetched = world
        .process()
        .await
        .fetch(&workspace_key("T1"), None)
        .await;
    assert!(fetched.expect("opens").is_some());
}
