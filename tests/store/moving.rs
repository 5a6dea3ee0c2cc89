//! Moving sealed rows from one backend to another. `tests/suite` moves rows between real servers.

use std::sync::Arc;
use std::time::Duration;

use crate::support::backends::Interrupted;
use crate::support::checks::Database;
use crate::support::copying::{copy, prune, rows_of};
use crate::support::installs::{With as _, in_workspace, noon, workspace_key};
use crate::support::meddling::{Fate, Meddling};
use crate::support::providers::master_key;
use crate::support::rotation::{ALPHA, Stage, alpha};
use crate::support::{Db, Store, all_rows};
use slack_installs::backend::{
    Backend, Change, Due, Expect, Key, Lane, MemoryBackend, Metadata, Row, Slot, SqliteBackend,
    Version,
};
use slack_installs::rotation::Error;
use slack_installs::store::Credential;
use slack_installs::testing::{Faults, Flaky};
use slack_installs::{
    ClientId, Delete, EncryptedStore, InstallationStore as _, KeyringError, LocalKeyProvider,
    TokenRotator,
};

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
    // Another app's rows, which are not moved.
    db.look_alike().store().await;
    let directory = tempfile::tempdir().expect("a directory");
    let target = SqliteBackend::open(directory.path().join("new.sqlite3")).await;
    let target = target.expect("opens");
    let copied = copy(&store, &target, 7).await;
    let rows = 30 * 2 + 3;
    assert_eq!(
        (copied.copied, copied.present, copied.replaced),
        (rows, 0, 0)
    );
    assert_eq!(copied.refused, [""; 0]);
    store
        .finish_copy(&target)
        .await
        .expect("the copy is complete");
    assert_eq!(rows_of(&db, &target).await, db.rows().await);

    let moved = db.store_over(target, provider()).await;
    let verified = moved.verify(None, 1000).await.expect("available");
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
    assert_eq!((copied.copied, copied.present), (53, 10));
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

/// Changes what an app may change while its rows are copied.
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
    // The primary data key has changed. Rows that are sealed with it would not open in the target.
    let early = store.finish_copy(&target).await;
    assert_matches!(early, Err(KeyringError::NotCopied));

    let again = copy(&store, &target, 7).await;
    // Replaced: two rows each of T7 and T8, and the manifest. Copied: T31 and the new key.
    assert_eq!((again.replaced, again.copied), (5, 3));
    let pruned = prune(&store, &target, 7).await;
    assert_eq!(pruned.removed, 4, "T3 and T29 are not restored");
    store
        .finish_copy(&target)
        .await
        .expect("the copy is complete");
    assert_eq!(rows_of(&db, &target).await, db.rows().await);
    let moved = db.store_over(target, provider()).await;
    let verified = moved.verify(None, 1000).await.expect("available");
    assert_eq!((verified.opened, verified.unreadable.len()), (62, 0));
}

#[tokio::test]
async fn a_target_in_use_is_left_alone() {
    let (db, store) = filled().await;
    // A store that the app opened itself, a store that a copy made, and rows without their keys.
    let own = db.store_over(MemoryBackend::default(), provider()).await;
    let done = MemoryBackend::default();
    copy(&store, &done, 100).await;
    store
        .finish_copy(&done)
        .await
        .expect("the copy is complete");
    store
        .finish_copy(&done)
        .await
        .expect("a second call succeeds too");
    let orphaned = MemoryBackend::default();
    let (key, row) = db.row("T3", "bot").await;
    put(&orphaned, &key.partition, &key.slot, &row).await;
    install(&store, 3).await;
    for target in [own.backend(), &done, &orphaned] {
        let before = rows_of(&db, target).await;
        let refused = store.copy_to(target, None, 100).await;
        assert_matches!(refused, Err(KeyringError::InUse));
        let refused = store.prune(target, None, 100).await;
        assert_matches!(refused, Err(KeyringError::NotCopied));
        assert_eq!(rows_of(&db, target).await, before);
    }
    for target in [own.backend(), &orphaned] {
        let refused = store.finish_copy(target).await;
        assert_matches!(refused, Err(KeyringError::NotCopied));
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
    assert_matches!(refused, Err(KeyringError::InUse));
    let refused = other.prune(&target, None, 100).await;
    assert_matches!(refused, Err(KeyringError::NotCopied));
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
        assert_matches!(opened, Err(KeyringError::Copying));
        copy(&store, &*target, 100).await;
    }
    assert_eq!(rows_of(&db, &*target).await, db.rows().await);
    store
        .finish_copy(&*target)
        .await
        .expect("the copy is complete");
    open().await.expect("the target opens as a store");
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

/// A process dies between Slack's response and the save. The rows are moved before its lease has
/// lapsed.
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
    assert_matches!(died, Err(Error::Interrupted));

    let target = MemoryBackend::default();
    copy(&stage.store, &target, 100).await;
    stage
        .store
        .finish_copy(&target)
        .await
        .expect("the copy is complete");
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
    let verified = store.verify(None, 1000).await.expect("available");
    assert_eq!(verified.unreadable, [format!("{}/T3 bot", db.app)]);
    assert_eq!(verified.opened, 62);
}

/// A target may reject a row that the source accepts.
#[tokio::test]
async fn a_row_that_the_target_does_not_take_is_named_and_the_others_are_copied() {
    let (db, store) = filled().await;
    let target = Arc::new(Meddling::new(Arc::new(MemoryBackend::default())));
    store.copy_to(&target, None, 1).await.expect("begun");
    target.next([Fate::Malformed]);
    let copied = copy(&store, &target, 100).await;
    let [refused] = &copied.refused[..] else {
        panic!("{copied:?}")
    };
    assert!(refused.starts_with(&format!("{}/", db.app)), "{refused}");
    assert!(refused.ends_with("refused on purpose"), "{refused}");
    assert_eq!(copied.copied + copied.present, 62);
}

#[tokio::test]
async fn a_row_that_no_database_could_keep_is_named_and_not_copied() {
    let (db, store) = filled().await;
    let (key, row) = db.row("T3", "bot").await;
    let due = Some(Due {
        lane: Lane::Refresh,
        at: noon() + Duration::from_millis(1),
    });
    db.overwrite(&key, Row { due, ..row }).await;
    let target = MemoryBackend::default();
    let copied = copy(&store, &target, 100).await;
    let reason = "its due time is not in whole seconds of 1970 to 9999";
    let wanted = format!("{}/T3 bot: {reason}", db.app);
    assert_eq!((copied.copied, copied.refused), (62, vec![wanted]));
    assert_eq!(rows_of(&db, &target).await.len(), 62);
}

#[tokio::test]
async fn a_target_that_answers_nothing_is_away_and_not_asked_for_ever() {
    let (_, store) = filled().await;
    let target = Arc::new(Meddling::new(Arc::new(MemoryBackend::default())));
    let begun = store.copy_to(&target, None, 1).await.expect("begun");
    let lost = || Fate::Lost {
        done: false,
        then: Box::pin(async {}),
    };
    // A row is put at most five times.
    target.next((0..4).map(|_| lost()));
    let copied = store.copy_to(&target, begun.next, 100).await;
    copied.expect("the fifth attempt gets a response");
    let target = Arc::new(Meddling::new(Arc::new(MemoryBackend::default())));
    let begun = store.copy_to(&target, None, 1).await.expect("begun");
    let commits = target.commits();
    target.next((0..5).map(|_| lost()));
    let away = store.copy_to(&target, begun.next, 100).await;
    let away = away.expect_err("five lost attempts are an error");
    assert!(away.is_transient(), "{away:?}");
    assert_eq!(target.commits(), commits + 5);
}

#[tokio::test]
async fn whatever_else_stops_a_copy_stops_it_the_next_time_too() {
    use slack_installs::backend::Error;
    let malformed = || KeyringError::Backend(Error::Malformed("on purpose".into()));
    for error in [KeyringError::InUse, KeyringError::NotCopied, malformed()] {
        assert!(!error.is_transient(), "{error:?}");
    }
}

#[tokio::test]
async fn a_row_that_moved_in_the_target_is_not_pruned_unseen() {
    let (db, store) = filled().await;
    let target = Arc::new(MemoryBackend::default());
    copy(&store, &*target, 100).await;
    let key = workspace_key("T3");
    store.delete(&key, &Delete::all()).await.expect("deleted");
    // Another pass replaces the row between the page and the delete.
    let (other, row) = {
        let rows = all_rows(&*target).await.into_iter();
        let is_t3 = |key: &Key| key.partition.as_str() == format!("{}/T3", db.app);
        let mut rows = rows.filter(|(key, _)| is_t3(key));
        rows.next().expect("it was copied")
    };
    let meddling = Meddling::new(Arc::clone(&target) as Arc<dyn Backend>);
    let inner = Arc::clone(&target);
    let (partition, slot) = (other.partition.clone(), other.slot.clone());
    let then = Box::pin(async move {
        let row = Row {
            version: Version::mint(),
            ..row
        };
        put(&*inner, &partition, &slot, &row).await;
    });
    meddling.next([Fate::Overtaken(then)]);
    let pruned = store.prune(&meddling, None, 100).await;
    assert_matches!(pruned, Err(KeyringError::Backend(_)));
    let stands = target.read(&other.partition, &[other.slot]).await;
    assert!(stands.expect("available")[0].is_some());
}

/// This holds for any page size.
#[tokio::test]
async fn a_move_asks_for_pages_that_fit_into_memory_and_sees_them_all() {
    let (db, store) = filled().await;
    let source = Arc::new(Meddling::new(Arc::clone(&db.backend)));
    let moving = db.store_over(Arc::clone(&source), provider()).await;
    let target = Meddling::paged(Arc::new(MemoryBackend::default()), 1);
    copy(&moving, &target, usize::MAX).await;
    prune(&moving, &target, usize::MAX).await;
    moving.verify(None, usize::MAX).await.expect("available");
    assert_eq!((source.most_asked(), target.most_asked()), (1000, 1000));

    // In this target, the rows of another app come first.
    let crowded = Arc::new(MemoryBackend::default());
    let other = ClientId::new("0.0").expect("an id");
    let opened = EncryptedStore::open(Arc::clone(&crowded), provider(), other).await;
    opened.expect("opens");
    let (key, row) = db.row("T3", "bot").await;
    put(&*crowded, &key.partition, &key.slot, &row).await;
    let crowded = Meddling::paged(crowded, 1);
    let refused = store.copy_to(&crowded, None, 100).await;
    assert_matches!(refused, Err(KeyringError::InUse));
}

/// Metadata is readable in the database, so it can be forged.
#[tokio::test]
async fn a_note_that_only_looks_like_ours_begins_no_copy_and_ends_none() {
    let (db, store) = filled().await;
    let keyring = |slot: &str| Key {
        partition: slack_installs::backend::Partition::new(format!("{}/keyring", db.app))
            .expect("a name"),
        slot: Slot::new(slot).expect("a name"),
    };
    let (own_key, ours) = db.primary_key().await;
    let other = db.look_alike();
    other.store().await;
    let (other_key, theirs) = other.primary_key().await;
    let note = keyring("copying");
    for (metadata, sealed) in [
        (&ours.metadata, &theirs.sealed),
        (&theirs.metadata, &ours.sealed),
    ] {
        let target = MemoryBackend::default();
        let forged = Row {
            version: Version::mint(),
            metadata: metadata.clone(),
            sealed: sealed.clone(),
            due: None,
        };
        put(&target, &note.partition, &note.slot, &forged).await;
        let refused = store.copy_to(&target, None, 100).await;
        assert_matches!(refused, Err(KeyringError::InUse));
        // The same holds with our primary key in the target.
        let manifest = db.row("keyring", "manifest").await.1;
        put(&target, &note.partition, &own_key.slot, &ours).await;
        put(
            &target,
            &note.partition,
            &keyring("manifest").slot,
            &manifest,
        )
        .await;
        for _ in 0..2 {
            let refused = store.finish_copy(&target).await;
            assert_matches!(refused, Err(KeyringError::NotCopied));
        }
    }
    // The same holds with another store's key and without a note.
    let target = MemoryBackend::default();
    let manifest = other.row("keyring", "manifest").await.1;
    put(&target, &note.partition, &other_key.slot, &theirs).await;
    put(
        &target,
        &note.partition,
        &keyring("manifest").slot,
        &manifest,
    )
    .await;
    let refused = store.finish_copy(&target).await;
    assert_matches!(refused, Err(KeyringError::NotCopied));
}

#[tokio::test]
async fn of_two_copies_that_begin_at_once_one_goes_on() {
    let (db, store) = filled().await;
    let target = Arc::new(MemoryBackend::default());
    let meddling = Interrupted::new(Arc::clone(&target) as Arc<dyn Backend>);
    let other = db.store_over(MemoryBackend::default(), provider()).await;
    let begun = Arc::clone(&target);
    meddling.meanwhile(move || {
        tokio::spawn(async move {
            other.copy_to(&*begun, None, 1).await.expect("begun");
        })
    });
    // The first read found no note.
    let refused = store.copy_to(&meddling, None, 100).await;
    assert_matches!(
        refused,
        Err(KeyringError::InUse),
        "rows of the other copy are in the target"
    );
}

#[tokio::test]
async fn a_note_that_another_source_has_just_written_is_not_written_over() {
    let (db, store) = filled().await;
    let other = db.store_over(MemoryBackend::default(), provider()).await;
    let inner = Arc::new(MemoryBackend::default());
    let target = Meddling::new(Arc::clone(&inner) as Arc<dyn Backend>);
    let begun = Arc::clone(&inner);
    let then = Box::pin(async move {
        let copied = other.copy_to(&*begun, None, 100).await;
        assert_eq!(copied.expect("begun").copied, 2);
    });
    target.next([Fate::Overtaken(then)]);
    let refused = store.copy_to(&target, None, 100).await;
    assert!(refused.expect_err("another copy has begun").is_transient());
    let rows = rows_of(&db, &*inner).await;
    assert_eq!(rows.len(), 2, "the other's data key and manifest");
    let refused = store.copy_to(&target, None, 100).await;
    assert_matches!(refused, Err(KeyringError::InUse));
}

#[tokio::test]
async fn a_data_key_that_does_not_open_is_named() {
    let (db, store) = filled().await;
    let keys = db.slots_of("keyring").await;
    let (primary, _) = db.primary_key().await;
    let is_retired = |slot: &&String| slot.starts_with("key/") && *slot != primary.slot.as_str();
    let slot = keys.iter().find(is_retired).expect("one key is retired");
    let (key, row) = db.row("keyring", slot).await;
    let mut bytes = row.sealed.as_bytes().to_vec();
    *bytes.last_mut().expect("not empty") ^= 1;
    let sealed = slack_installs::backend::Sealed::from_stored(bytes);
    db.overwrite(&key, Row { sealed, ..row }).await;
    let verified = store.verify(None, 1000).await.expect("available");
    assert_eq!(verified.unreadable, [format!("{}/keyring {slot}", db.app)]);
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
    backend.commit(partition, &[put]).await.expect("available");
}

fn provider() -> LocalKeyProvider {
    LocalKeyProvider::new(master_key())
}
