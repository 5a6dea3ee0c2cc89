//! An `Arc` of a lifecycle store is a lifecycle store: each call reaches the store inside.

use std::sync::Arc;

use slack_installs::backend::MemoryBackend;
use slack_installs::store::{Access, LifecycleStore};
use slack_installs::{Departure, Hold};

use crate::support::Db;
use crate::support::installs::{
    With, enterprise, in_org, in_workspace, noon, team, user_id, workspace_key,
};

async fn lived(store: impl LifecycleStore) {
    let key = workspace_key("T1");
    let installation = in_workspace("T1").with_user("U1", "xoxp-1");
    let first = store.store(&installation).await.expect("stored");
    let glanced = store.glance(&key).await.expect("available");
    let (revision, summary) = glanced.expect("it exists");
    assert_eq!(revision, first);
    assert!(summary.is_some());
    assert_eq!(store.users(&key).await.expect("available"), [user_id("U1")]);
    let hold = Hold {
        is_on: true,
        reason: "x".to_owned(),
        at: noon(),
    };
    assert!(store.hold(&key, &hold).await.expect("available"));
    let held = store.fetch(&key, None).await.expect("available");
    let held = held.expect("it exists");
    assert!(held.is_on_hold());
    let revision = held.revision;
    let org = enterprise("E1");
    let moved = store.set_enterprise(&key, revision, Some(&org)).await;
    assert!(moved.expect("available"));
    let moved = store.fetch(&key, None).await.expect("available");
    let moved = moved.expect("it exists");
    assert_eq!(moved.home.enterprise().map(|org| &org.id), Some(&org));

    let access = Access {
        teams: vec![team("T1")],
        is_granted: false,
        at_micros: 5,
    };
    let nobody = store.set_access(&org, &access).await;
    assert!(!nobody.expect("available"));
    assert!(
        store
            .has_access(&org, &team("T1"))
            .await
            .expect("available")
    );
    let organisation = in_org("E1", None).with_bot("xoxb-1");
    store.store(&organisation).await.expect("stored");
    assert!(store.set_access(&org, &access).await.expect("available"));
    assert!(
        !store
            .has_access(&org, &team("T1"))
            .await
            .expect("available")
    );

    let departure = Departure::new(key.clone(), "x", noon());
    let revision = moved.revision;
    let noted = store.purge(&departure, revision, Some(noon())).await;
    assert!(noted.expect("purged").is_some());
    assert!(store.glance(&key).await.expect("available").is_none());
    let note = store.departure(&key).await.expect("available");
    let note = note.expect("it exists");
    assert_eq!(note.departure, departure);
    let due = store.due_departures(noon(), 10).await.expect("available");
    assert_eq!(due.len(), 1);
    let put_off = store.postpone(&note, noon()).await.expect("available");
    let put_off = put_off.expect("it existed");
    assert_eq!(put_off.attempts, 1);
    assert!(!store.settle(&note).await.expect("available"));
    assert!(store.settle(&put_off).await.expect("available"));
    assert!(store.departure(&key).await.expect("available").is_none());
}

#[tokio::test]
async fn a_lifecycle_store_in_an_arc_does_what_it_does_without_one() {
    for is_shared in [false, true] {
        let db = Db::new(Arc::new(MemoryBackend::default()));
        let store = db.store().await;
        if is_shared {
            lived(Arc::new(store) as Arc<dyn LifecycleStore>).await
        } else {
            lived(store).await
        }
    }
}
