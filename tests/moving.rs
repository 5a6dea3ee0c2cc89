//! Moving from one backend to another, sealed. `tests/suite` moves across real servers.

#[macro_use]
mod support;

use std::sync::Arc;
use std::time::Duration;

use slack_installs::backend::{
    Backend, Change, Expect, Faults, Flaky, MemoryBackend, Metadata, Row, Slot, SqliteBackend,
    Version,
};
use slack_installs::rotation::Error;
use slack_installs::store::Credential;
use slack_installs::{
    CopyError, Delete, EncryptedStore, InstallationStore as _, LocalKeyProvider, OpenError,
    TokenRotator,
};
use support::checks::Database;
use support::houses::{copy, prune, rows_of};
use support::installs::{With as _, in_workspace, workspace_key};
use support::providers::master_key;
use support::rotation::{ALPHA, Stage, alpha};
use support::{Db, Store};

async fn filled() -> (Db, Store) {
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

async fn install(store: &Store, tenant: u32) {
    let installation = in_workspace(&format!("T{tenant}")).with_bot(&format!("xoxb-{tenant}"));
    store.store(&installation).await.expect("stored");
}

#[tokio::test]
async fn every_row_moves_as_it_is_and_opens_in_its_new_home() {
    let (db, store) = filled().await;
    // Another app's rows are not ours to move.
    db.look_alike().store().await;
    let directory = tempfile::tempdir().expect("a directory");
    let target = SqliteBackend::open(directory.path().join("new.sqlite3")).await;
    let target = target.expect("opens");
    let copied = copy(&store, &target, 7).await;
    let rows = 30 * 2 + 2;
    assert_eq!(
        (copied.copied, copied.present, copied.replaced),
        (rows, 0, 0)
    );
    assert_eq!(copied.refused, [""; 0]);
    store.finish_copy(&target).await.expect("it is all there");
    assert_eq!(rows_of(&db, &target).await, db.rows().await);

    let moved = db.store_over(target, provider()).await;
    let verified = moved.verify(None, 1000).await.expect("answers");
    assert_eq!((verified.opened, verified.unreadable), (rows, Vec::new()));
    let installation = moved.fetch(&workspace_key("T7"), None).await;
    assert!(installation.expect("opens").is_some());
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
    let (db, store) = filled().await;
    let target = Flaky::new(MemoryBackend::default(), Faults::default());
    copy(&store, &target, 5).await;
    change(&db, &store).await;
    copy(&store, &target, 5).await;
    prune(&store, &target, 5).await;
    assert_eq!(rows_of(&db, target.inner()).await, db.rows().await);
}

/// What an app does to its rows while they are copied.
async fn change(db: &Db, store: &Store) {
    install(store, 7).await;
    install(store, 31).await;
    for tenant in ["T3", "T29"] {
        let key = workspace_key(tenant);
        store.delete(&key, &Delete::all()).await.expect("deleted");
    }
    store.rotate_data_key().await.expect("rotated");
    install(store, 8).await;
    assert_eq!(db.rows_of("T3").await, []);
}

#[tokio::test]
async fn what_changes_comes_or_goes_during_a_copy_is_caught_up_with() {
    let (db, store) = filled().await;
    let target = MemoryBackend::default();
    copy(&store, &target, 7).await;
    change(&db, &store).await;
    // The primary data key is another by now, and what is sealed with it would not open.
    let early = store.finish_copy(&target).await;
    assert!(matches!(early, Err(CopyError::NotCopied)), "{early:?}");

    let again = copy(&store, &target, 7).await;
    // Two rows each of T7 and T8, and the primary key; T31 and the retired one.
    assert_eq!((again.replaced, again.copied), (5, 3));
    let pruned = prune(&store, &target, 7).await;
    assert_eq!(pruned.removed, 4, "T3 and T29 do not come back");
    store.finish_copy(&target).await.expect("it is all there");
    assert_eq!(rows_of(&db, &target).await, db.rows().await);
    let moved = db.store_over(target, provider()).await;
    let verified = moved.verify(None, 1000).await.expect("answers");
    assert_eq!((verified.opened, verified.unreadable.len()), (61, 0));
}

#[tokio::test]
async fn a_target_in_use_is_left_alone() {
    let (db, store) = filled().await;
    // A store of the app that began by itself; one that a copy made; rows without their keys.
    let own = db.store_over(MemoryBackend::default(), provider()).await;
    let done = MemoryBackend::default();
    copy(&store, &done, 100).await;
    store.finish_copy(&done).await.expect("it is all there");
    store.finish_copy(&done).await.expect("once more, as well");
    let orphaned = MemoryBackend::default();
    let (key, row) = db.row("T3", "bot").await;
    put(&orphaned, &key.partition, &key.slot, &row).await;
    install(&store, 3).await;
    for target in [own.backend(), &done, &orphaned] {
        let before = rows_of(&db, target).await;
        let refused = store.copy_to(target, None, 100).await;
        assert!(matches!(refused, Err(CopyError::InUse)), "{refused:?}");
        let refused = store.prune(target, None, 100).await;
        assert!(matches!(refused, Err(CopyError::NotCopied)), "{refused:?}");
        assert_eq!(rows_of(&db, target).await, before);
    }
    for target in [own.backend(), &orphaned] {
        let refused = store.finish_copy(target).await;
        assert!(matches!(refused, Err(CopyError::NotCopied)), "{refused:?}");
    }
}

#[tokio::test]
async fn a_copy_that_another_source_has_begun_is_not_joined() {
    let (db, store) = filled().await;
    let target = MemoryBackend::default();
    store.copy_to(&target, None, 3).await.expect("copied");
    let other = db.store_over(MemoryBackend::default(), provider()).await;
    let before = rows_of(&db, &target).await;
    let refused = other.copy_to(&target, None, 100).await;
    assert!(matches!(refused, Err(CopyError::InUse)), "{refused:?}");
    let refused = other.prune(&target, None, 100).await;
    assert!(matches!(refused, Err(CopyError::NotCopied)), "{refused:?}");
    assert_eq!(rows_of(&db, &target).await, before);
}

#[tokio::test]
async fn a_target_does_not_open_before_the_copy_is_finished() {
    let (db, store) = filled().await;
    let target = Arc::new(MemoryBackend::default());
    store.copy_to(&*target, None, 1).await.expect("copied");
    let open = async || {
        let opened = EncryptedStore::open(Arc::clone(&target), provider(), db.app.clone());
        opened.await.map(drop)
    };
    for _ in 0..2 {
        let opened = open().await;
        assert!(matches!(opened, Err(OpenError::Copying)), "{opened:?}");
        copy(&store, &*target, 100).await;
    }
    assert_eq!(rows_of(&db, &*target).await, db.rows().await);
    store.finish_copy(&*target).await.expect("it is all there");
    open().await.expect("it is a store now");
}

#[tokio::test]
async fn a_row_that_differs_in_anything_is_not_taken_for_the_same() {
    let (db, store) = filled().await;
    let target = MemoryBackend::default();
    copy(&store, &target, 100).await;
    let (key, row) = db.row("T3", "bot").await;
    let damaged = Row {
        metadata: Metadata::new("{}"),
        ..row
    };
    put(&target, &key.partition, &key.slot, &damaged).await;
    assert_eq!(copy(&store, &target, 100).await.replaced, 1);
    assert_eq!(rows_of(&db, &target).await, db.rows().await);
}

/// A process is killed between Slack's answer and the save, and the database moves house before
/// its lease has lapsed.
#[tokio::test]
async fn a_refresh_in_flight_is_recovered_in_the_new_home() {
    let stage = Stage::on(
        Database::from(Arc::new(MemoryBackend::default())),
        slack_installs::testing::Rotation::default(),
    )
    .await;
    stage.install(ALPHA, "chat:write", "").await;
    stage.expire();
    let died = stage.dying(1).token_for(&alpha(), Credential::Bot).await;
    assert!(matches!(died, Err(Error::Interrupted)), "{died:?}");

    let target = MemoryBackend::default();
    copy(&stage.store, &target, 100).await;
    stage.store.finish_copy(&target).await.expect("all there");
    let moved = EncryptedStore::open(target, provider(), stage.fake.client_id()).await;
    let moved = TokenRotator::new(stage.config(), stage.slack(), moved.expect("opens"))
        .with_clock(stage.fake.clock());
    stage.fake.advance(Duration::from_secs(16));
    let token = moved.token_for(&alpha(), Credential::Bot).await;
    let token = token.expect("within the grace");
    assert!(stage.fake.is_live(token.access_token.expose()));
    assert_eq!(stage.refreshes(), 2);
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

async fn put(
    backend: &dyn Backend,
    partition: &slack_installs::backend::Partition,
    slot: &Slot,
    row: &Row,
) {
    let put = Change::Put {
        slot: slot.clone(),
        row: row.clone(),
        expect: Expect::Any,
    };
    backend.commit(partition, &[put]).await.expect("it answers");
}

fn provider() -> LocalKeyProvider {
    LocalKeyProvider::new(master_key())
}
