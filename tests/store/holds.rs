//! What somebody who writes to the database can do to a hold: nothing that ends it, except to
//! delete its row or to put an older row back.

use std::sync::Arc;

use slack_installs::backend::{MemoryBackend, Metadata, Row, Sealed};
use slack_installs::store::LifecycleStore as _;
use slack_installs::{Departure, Hold, InstallationStore as _};

use crate::support::installs::{With, in_workspace, noon, workspace_key};
use crate::support::{Db, Store};

const LIFTED: &str = r#"{"v":1,"kind":"hold","is_on":false,"reason":"forged","at":1}"#;

async fn held(reason: &str) -> (Db, Store) {
    let db = Db::new(Arc::new(MemoryBackend::default()));
    let store = db.store().await;
    for tenant in ["T1", "T2"] {
        install(&store, tenant).await;
    }
    hold(&store, "T1", true, reason).await;
    hold(&store, "T2", true, "another").await;
    hold(&store, "T2", false, "solved").await;
    (db, store)
}

async fn install(store: &Store, tenant: &str) {
    let installation = in_workspace(tenant).with_bot("xoxb-1");
    store.store(&installation).await.expect("stored");
}

async fn hold(store: &Store, tenant: &str, is_on: bool, reason: &str) {
    let hold = Hold {
        is_on,
        reason: reason.to_owned(),
        at: noon(),
    };
    let is_known = store.hold(&workspace_key(tenant), &hold).await;
    assert!(is_known.expect("available"));
}

async fn reason(store: &Store) -> String {
    let fetched = store.fetch(&workspace_key("T1"), None).await;
    let fetched = fetched.expect("available").expect("installed");
    assert!(fetched.is_on_hold());
    fetched.installation.bot.as_ref().expect("it is kept");
    fetched.hold.expect("a hold").reason
}

/// Uninstalls the app, and installs it again.
async fn leave_and_come_back(store: &Store) {
    let key = workspace_key("T1");
    let revision = store
        .glance(&key)
        .await
        .expect("available")
        .expect("there")
        .0;
    let departure = Departure::new(key, "app_uninstalled", noon());
    let purged = store.purge(&departure, revision, Some(noon())).await;
    purged.expect("purged");
    install(store, "T1").await;
}

#[tokio::test]
async fn a_hold_row_with_anything_changed_is_on_and_nothing_forged_is_sealed_as_genuine() {
    let texts = [
        "{}",
        "",
        "null",
        LIFTED,
        &LIFTED.replace("false", "true"),
        r#"{"v":2,"kind":"hold"}"#,
    ];
    for text in texts {
        let (db, store) = held("ticket 1").await;
        let (key, row) = db.row("T1", "hold").await;
        let metadata = Metadata::new(text);
        db.overwrite(&key, Row { metadata, ..row }).await;
        for _ in 0..2 {
            let reason = reason(&store).await;
            assert!(reason.contains("cannot be read"), "{text}: {reason}");
            leave_and_come_back(&store).await;
        }
    }
    for sealed in [Sealed::from_stored([]), Sealed::from_stored([7; 200])] {
        let (db, store) = held("ticket 1").await;
        let (key, row) = db.row("T1", "hold").await;
        db.overwrite(&key, Row { sealed, ..row }).await;
        assert!(reason(&store).await.contains("cannot be read"));
    }
}

#[tokio::test]
async fn a_row_from_elsewhere_in_the_place_of_a_hold_is_on() {
    for (tenant, slot) in [("T2", "hold"), ("T1", "install"), ("T1", "bot")] {
        let (db, store) = held("ticket 1").await;
        let (_, other) = db.row(tenant, slot).await;
        let (key, _) = db.row("T1", "hold").await;
        db.overwrite(&key, other).await;
        assert!(reason(&store).await.contains("cannot be read"), "{tenant}");
    }
}

#[tokio::test]
async fn rows_of_the_installation_that_are_replayed_deleted_or_forged_end_no_hold() {
    let db = Db::new(Arc::new(MemoryBackend::default()));
    let store = db.store().await;
    install(&store, "T1").await;
    let before = db.row("T1", "install").await;
    hold(&store, "T1", true, "ticket 1").await;
    // A row from before the hold.
    db.overwrite(&before.0, before.1.clone()).await;
    assert_eq!(reason(&store).await, "ticket 1");
    // Metadata that is not authenticated, as earlier versions stored a hold, or none.
    let facts = before.1.metadata.as_str();
    let forged = facts.replace('{', r#"{"hold":{"is_on":false,"reason":"x","at":1},"#);
    for text in ["{}", &forged] {
        let metadata = Metadata::new(text);
        let row = before.1.clone();
        db.overwrite(&before.0, Row { metadata, ..row }).await;
        install(&store, "T1").await;
        assert_eq!(reason(&store).await, "ticket 1");
    }
    db.remove(&before.0).await;
    install(&store, "T1").await;
    assert_eq!(reason(&store).await, "ticket 1");
}

#[tokio::test]
async fn metadata_in_the_clear_puts_no_tenant_on_hold() {
    let db = Db::new(Arc::new(MemoryBackend::default()));
    let store = db.store().await;
    install(&store, "T1").await;
    let (key, row) = db.row("T1", "install").await;
    let forged = r#"{"hold":{"is_on":true,"reason":"forged","at":1},"#;
    let metadata = Metadata::new(row.metadata.as_str().replace('{', forged));
    db.overwrite(&key, Row { metadata, ..row }).await;
    install(&store, "T1").await;
    let fetched = store.fetch(&workspace_key("T1"), None).await;
    assert_eq!(
        fetched.expect("it opens again").expect("installed").hold,
        None
    );
}
