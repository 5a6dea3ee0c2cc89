//! A hold stays until an operator lifts it, whatever happens to the tenant.

use slack_installs::store::{ChainKey, Credential, LifecycleStore as _, RotationStore as _};
use slack_installs::{Delete, Departure, Hold, InstallationStore as _};

use super::{damage, deleted, fetch, of, put};
use crate::support::installs::{noon, workspace_key};
use crate::support::{Db, Store};

fn hold(is_on: bool) -> Hold {
    Hold {
        is_on,
        reason: "ticket 1".to_owned(),
        at: noon(),
    }
}

/// Puts T1 on hold, or lifts its hold. Returns whether the store knows T1.
async fn set(store: &Store, is_on: bool) -> bool {
    let set = store.hold(&workspace_key("T1"), &hold(is_on)).await;
    set.expect("available")
}

async fn held(store: &Store) -> Option<Hold> {
    let held = store.held(&workspace_key("T1")).await;
    held.expect("available")
}

/// Asserts that every reader sees the same hold of T1.
async fn assert_hold(store: &Store, hold: Option<&Hold>) {
    let is_on = hold.is_some_and(|hold| hold.is_on);
    assert_eq!(held(store).await.as_ref(), hold);
    let fetched = fetch(store, &workspace_key("T1"), Some("U1")).await;
    assert_eq!((fetched.hold.as_ref(), fetched.is_on_hold()), (hold, is_on));
    let bot = ChainKey {
        tenant: workspace_key("T1"),
        credential: Credential::Bot,
    };
    let chain = store.chain(&bot).await.expect("available");
    assert_eq!(chain.expect("a bot").is_on_hold, is_on);
    let updated = store.update(&bot, None, &mut |chain| chain.cloned()).await;
    let updated = updated.expect("available").expect("a bot");
    assert_eq!(updated.is_on_hold, is_on);
}

/// Removes everything of T1, in one of four ways.
async fn leave(store: &Store, way: usize) {
    let key = workspace_key("T1");
    let revision = fetch(store, &key, None).await.revision;
    let departure = Departure::new(key.clone(), "app_uninstalled", noon());
    match way {
        0 | 1 => {
            let tell_at = (way == 0).then(noon);
            let purged = store.purge(&departure, revision, tell_at).await;
            assert_eq!(purged.expect("purged").is_some(), way == 0);
        }
        2 => assert!(deleted(store, &key, &Delete::all()).await),
        _ => assert!(deleted(store, &key, &Delete::all().only(revision)).await),
    }
    assert!(store.fetch(&key, None).await.expect("available").is_none());
}

async fn settle(store: &Store) {
    let noted = store.departure(&workspace_key("T1")).await;
    if let Some(noted) = noted.expect("available") {
        assert!(store.settle(&noted).await.expect("available"));
    }
}

pub(crate) async fn a_hold_outlives_whatever_removes_the_tenant_until_it_is_lifted(db: Db) {
    let store = db.store().await;
    for way in 0..4 {
        put(&store, of("T1")).await;
        assert_hold(&store, None).await;
        assert!(set(&store, true).await);
        assert_hold(&store, Some(&hold(true))).await;
        for _ in 0..2 {
            leave(&store, way).await;
            assert_eq!(held(&store).await, Some(hold(true)));
            let slots = db.slots_of("T1").await;
            let left: &[&str] = if way == 0 {
                &["departure", "hold"]
            } else {
                &["hold"]
            };
            assert_eq!(slots, left);
            put(&store, of("T1")).await;
            assert_hold(&store, Some(&hold(true))).await;
        }
        assert!(set(&store, false).await);
        assert_hold(&store, Some(&hold(false))).await;
        // That it was lifted goes with the tenant.
        leave(&store, way).await;
        settle(&store).await;
        assert!(db.slots_of("T1").await.is_empty());
    }
}

pub(crate) async fn a_hold_can_be_lifted_when_the_app_is_not_installed(db: Db) {
    let store = db.store().await;
    put(&store, of("T1")).await;
    assert!(set(&store, true).await);
    leave(&store, 1).await;
    assert!(set(&store, true).await, "it is on already");
    assert!(set(&store, false).await);
    assert!(!set(&store, false).await, "nothing is left");
    assert!(!set(&store, true).await, "the app is not installed");
    assert!(db.slots_of("T1").await.is_empty());
    put(&store, of("T1")).await;
    assert_hold(&store, None).await;
}

pub(crate) async fn a_hold_that_cannot_be_read_is_on_and_stays_so(db: Db) {
    let store = db.store().await;
    put(&store, of("T1")).await;
    // Also the record that a hold was lifted.
    for is_on in [true, false] {
        assert!(set(&store, true).await && set(&store, is_on).await);
        damage(&db, "T1", "hold").await;
        let unreadable = held(&store).await.expect("a hold");
        assert!(unreadable.is_on && unreadable.reason.contains("cannot be read"));
        assert_hold(&store, Some(&unreadable)).await;
        put(&store, of("T1")).await;
        assert_hold(&store, Some(&unreadable)).await;
        for way in 0..4 {
            leave(&store, way).await;
            put(&store, of("T1")).await;
            assert_hold(&store, Some(&unreadable)).await;
            damage(&db, "T1", "hold").await;
        }
        // Only an operator ends it, or gives it a reason again.
        if is_on {
            assert!(set(&store, true).await);
            assert_hold(&store, Some(&hold(true))).await;
            damage(&db, "T1", "hold").await;
        }
        assert!(set(&store, false).await);
        assert_hold(&store, Some(&hold(false))).await;
    }
}

pub(crate) async fn a_tenant_whose_installation_does_not_open_can_be_put_on_hold(db: Db) {
    let store = db.store().await;
    put(&store, of("T1")).await;
    damage(&db, "T1", "install").await;
    assert!(set(&store, true).await);
    put(&store, of("T1")).await;
    assert_hold(&store, Some(&hold(true))).await;
}
