//! Moving from one backend to another, sealed.

mod support;

use std::sync::Arc;

use slack_installs::backend::{Backend, Faults, Flaky, MemoryBackend, Row, SqliteBackend, Version};
use slack_installs::store::ListCursor;
use slack_installs::{Copied, InstallationStore as _, LocalKeyProvider};
use support::Db;
use support::installs::{With as _, in_workspace, workspace_key};
use support::providers::master_key;

async fn filled() -> (Db, support::Store) {
    let db = Db::new(Arc::new(MemoryBackend::default()));
    let store = db.store().await;
    for tenant in 0..25 {
        install(&store, tenant).await;
    }
    store.rotate_data_key().await.expect("rotated");
    for tenant in 25..30 {
        install(&store, tenant).await;
    }
    (db, store)
}

async fn install(store: &support::Store, tenant: u32) {
    let installation = in_workspace(&format!("T{tenant}")).with_bot(&format!("xoxb-{tenant}"));
    store.store(&installation).await.expect("stored");
}

/// Copies every page, as often as the target loses something.
async fn copy(store: &support::Store, target: &dyn Backend, limit: usize) -> Copied {
    let mut all = Copied::default();
    let mut from: Option<ListCursor> = None;
    loop {
        let page = match store.copy_to(target, from.clone(), limit).await {
            Ok(page) => page,
            Err(error) if error.is_transient() => continue,
            Err(error) => panic!("{error:?}"),
        };
        all.copied += page.copied;
        all.present += page.present;
        all.differing.extend(page.differing);
        from = page.next;
        if from.is_none() {
            return all;
        }
    }
}

#[tokio::test]
async fn every_row_moves_as_it_is_and_opens_in_its_new_home() {
    let (db, store) = filled().await;
    // Another app's rows are not ours to move.
    db.look_alike().store().await;
    let directory = tempfile::tempdir().expect("a directory");
    let target = SqliteBackend::open(directory.path().join("new.sqlite3"))
        .await
        .expect("opens");
    let copied = copy(&store, &target, 7).await;
    let rows = 30 * 2 + 2;
    assert_eq!(
        (copied.copied, copied.present, copied.differing.len()),
        (rows, 0, 0)
    );

    let moved = db.store_over(target, provider()).await;
    let verified = moved.verify(None, 1000).await.expect("answers");
    assert_eq!((verified.opened, verified.unreadable), (rows, Vec::new()));
    assert!(
        moved
            .fetch(&workspace_key("T7"), None)
            .await
            .expect("opens")
            .is_some()
    );
}

#[tokio::test]
async fn a_copy_that_was_interrupted_is_done_again() {
    let (_, store) = filled().await;
    let target = MemoryBackend::default();
    store.copy_to(&target, None, 10).await.expect("copied");
    let copied = copy(&store, &target, 10).await;
    assert_eq!((copied.copied, copied.present), (52, 10));
}

#[tokio::test]
async fn a_target_that_loses_answers_gets_every_row() {
    let (_, store) = filled().await;
    let target = Flaky::new(MemoryBackend::default(), Faults::default());
    let copied = copy(&store, &target, 5).await;
    assert!(copied.differing.is_empty());
    assert_eq!(
        target
            .inner()
            .scan(None, 1000)
            .await
            .expect("a scan")
            .rows
            .len(),
        62
    );
}

#[tokio::test]
async fn a_target_that_was_used_by_itself_is_reported_and_left_alone() {
    let (db, store) = filled().await;
    let target = MemoryBackend::default();
    let target = db.store_over(target, provider()).await;
    let copied = copy(&store, target.backend(), 100).await;
    assert_eq!(copied.differing, [format!("{}/keyring primary", db.app)]);
}

#[tokio::test]
async fn a_row_that_does_not_open_is_named() {
    let (db, store) = filled().await;
    let (key, row) = db.row("T3", "bot").await;
    db.overwrite(
        &key,
        Row {
            version: Version::mint(),
            ..row
        },
    )
    .await;
    let verified = store.verify(None, 1000).await.expect("answers");
    assert_eq!(verified.unreadable, [format!("{}/T3 bot", db.app)]);
    assert_eq!(verified.opened, 61);
}

fn provider() -> LocalKeyProvider {
    LocalKeyProvider::new(master_key())
}
