//! Data keys: few calls to the key provider, no use past 15 minutes, and key rotation.
//!
//! Time is tokio's, paused: it moves only when a test moves it, or when every task waits.

#[path = "keyring/faults.rs"]
mod faults;
#[path = "keyring/isolation.rs"]
mod isolation;
#[path = "keyring/manifest.rs"]
mod manifest;
#[path = "keyring/rollout.rs"]
mod rollout;

use std::sync::Arc;
use std::time::Duration;

use slack_installs::backend::{self, MemoryBackend};
use slack_installs::store::Error;
use slack_installs::{
    EncryptedStore, InstallationStore, KeyError, KeyringError, LocalKeyProvider, StateStore,
};
use tokio::task::JoinSet;
use tokio::time::advance;

use crate::support::backends::Unreliable;
use crate::support::installs::{With, bot_token, in_workspace, noon, workspace_key};
use crate::support::providers::{Remote, master_key, master_key_of};
use crate::support::{Db, Store, all_rows};

#[tokio::test(start_paused = true)]
async fn one_call_to_the_provider_serves_every_read_and_write() {
    let (db, provider) = (memory(), Remote::new());
    let store = db.store_by(provider.clone()).await;
    assert_eq!(provider.unwraps(), 1);
    for number in 0..100 {
        install(&store, &format!("T{number}")).await;
        assert!(reads(&store, &format!("T{number}")).await);
    }
    assert_eq!(provider.unwraps(), 1);
}

#[tokio::test(start_paused = true)]
async fn readers_who_come_at_once_wait_for_one_call() {
    let (db, provider) = (memory(), Remote::new());
    let store = db.store_by(provider.clone()).await;
    install(&store, "T1").await;
    advance(HARD_AGE).await;
    let unwraps = provider.unwraps();
    assert_eq!(reads_at_once(&store).await, 64);
    assert_eq!(provider.unwraps(), unwraps + 1);

    // The same holds while the provider is down: one call, and 64 errors.
    advance(HARD_AGE).await;
    provider.set_down(true);
    assert_eq!(reads_at_once(&store).await, 0);
    assert_eq!(provider.unwraps(), unwraps + 2);

    // The same holds for a key that is not the primary.
    provider.set_down(false);
    advance(Duration::from_secs(2)).await;
    store.rotate_data_key().await.expect("rotated");
    let cold = db.store_by(provider.clone()).await;
    let unwraps = provider.unwraps();
    assert_eq!(reads_at_once(&cold).await, 64);
    assert_eq!(provider.unwraps(), unwraps + 1);
}

#[tokio::test(start_paused = true)]
async fn without_the_provider_all_works_for_15_minutes_and_nothing_after() {
    let (db, provider) = (memory(), Remote::new());
    let store = db.store_by(provider.clone()).await;
    install(&store, "T1").await;
    provider.set_down(true);
    for _ in 0..14 {
        advance(Duration::from_secs(60)).await;
        assert!(reads(&store, "T1").await);
    }
    install(&store, "T1").await;
    advance(Duration::from_secs(60)).await;
    for _ in 0..5 {
        let outcomes = [
            store.fetch(&workspace_key("T1"), None).await.map(drop),
            store
                .store(&in_workspace("T1").with_bot("xoxb-2"))
                .await
                .map(drop),
            store.consume(&STATE, noon()).await.map(drop),
        ];
        for outcome in outcomes {
            let error = outcome.expect_err("a key past its maximum age is not used");
            assert!(
                matches!(error, Error::Key(_)) && error.is_transient(),
                "{error:?}"
            );
        }
        advance(Duration::from_secs(60)).await;
    }
    // Deleting and listing open no rows.
    assert_eq!(
        store
            .list(None, 10)
            .await
            .expect("listed")
            .installations
            .len(),
        1
    );

    let _ = store.fetch(&workspace_key("T1"), None).await;
    provider.set_down(false);
    advance(Duration::from_secs(2)).await;
    assert!(
        reads(&store, "T1").await,
        "two seconds after the provider came back"
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_is_fetched_again_ahead_of_time_by_one_call_that_nobody_waits_for() {
    let (db, provider) = (memory(), Remote::new());
    let store = db.store_by(provider.clone()).await;
    install(&store, "T1").await;
    advance(Duration::from_secs(4 * 60 - 1)).await;
    assert!(reads(&store, "T1").await);
    settle().await;
    assert_eq!(provider.unwraps(), 1);

    advance(Duration::from_secs(30)).await;
    assert_eq!(reads_at_once(&store).await, 64);
    settle().await;
    assert_eq!(provider.unwraps(), 2);

    // From then on the key is valid for another 15 minutes.
    provider.set_down(true);
    advance(HARD_AGE - Duration::from_secs(2)).await;
    assert!(reads(&store, "T1").await);
    advance(Duration::from_secs(2)).await;
    assert!(!reads(&store, "T1").await);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_down_is_not_asked_by_every_request() {
    let (db, provider) = (memory(), Remote::new());
    let store = db.store_by(provider.clone()).await;
    install(&store, "T1").await;
    provider.set_down(true);
    advance(SOFT_AGE).await;
    for asked in 1..=5 {
        for _ in 0..50 {
            assert!(reads(&store, "T1").await);
            tokio::task::yield_now().await;
        }
        settle().await;
        assert!(reads(&store, "T1").await);
        settle().await;
        assert_eq!(provider.unwraps(), 1 + asked);
        advance(Duration::from_secs(11)).await;
    }
    // When the provider is back, the next request fetches the key again.
    provider.set_down(false);
    assert!(reads(&store, "T1").await);
    settle().await;
    provider.set_down(true);
    advance(HARD_AGE - Duration::from_secs(1)).await;
    assert!(reads(&store, "T1").await);
}

#[tokio::test(start_paused = true)]
async fn processes_that_open_a_new_database_at_once_agree_on_one_key() {
    let db = memory();
    let mut tasks = JoinSet::new();
    for number in 0..8 {
        let db = db.clone();
        // Each process has its own slow provider, so that all of them find the keyring empty.
        tasks.spawn(async move {
            let store = db.store_by(Remote::new()).await;
            install(&store, &format!("T{number}")).await;
            store
        });
    }
    let stores = tasks.join_all().await;
    assert_eq!(slots(&db).await.len(), 2, "one key and the manifest");
    for store in stores.iter().chain([&db.store().await]) {
        for number in 0..8 {
            assert!(reads(store, &format!("T{number}")).await);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_rotation_old_rows_open_and_new_rows_use_the_new_key() {
    let db = memory();
    let (store, elsewhere) = (db.store().await, db.store().await);
    install(&store, "T1").await;
    let old_key = sealed_under(&db, "T1").await;
    let mut keys = vec![old_key];
    for tenant in ["T2", "T3"] {
        let id = store.rotate_data_key().await.expect("rotated");
        install(&store, tenant).await;
        assert_eq!(sealed_under(&db, tenant).await, *id.as_bytes());
        assert!(!keys.contains(id.as_bytes()));
        keys.push(*id.as_bytes());
    }
    assert_eq!(slots(&db).await.len(), 4, "three keys and the manifest");
    assert_eq!(
        sealed_under(&db, "T1").await,
        old_key,
        "a rotation touches no row"
    );

    // A process that opened the store before still seals with the old key, and reads every row.
    install(&elsewhere, "T4").await;
    assert_eq!(sealed_under(&db, "T4").await, old_key);
    let fresh = db.store().await;
    for reader in [&store, &elsewhere, &fresh] {
        for tenant in ["T1", "T2", "T3", "T4"] {
            assert!(reads(reader, tenant).await, "{tenant}");
        }
    }
    advance(HARD_AGE).await;
    for reader in [&store, &elsewhere, &fresh] {
        assert!(reads(reader, "T1").await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rotation_reaches_every_process_within_15_minutes() {
    let db = memory();
    let (store, elsewhere) = (db.store().await, db.store().await);
    install(&elsewhere, "T1").await;
    let id = store.rotate_data_key().await.expect("rotated");
    // The process is always busy, and reads only rows of the old key.
    for _ in 0..15 {
        advance(Duration::from_secs(60)).await;
        assert!(reads(&elsewhere, "T1").await);
        settle().await;
    }
    install(&elsewhere, "T2").await;
    assert_eq!(sealed_under(&db, "T2").await, *id.as_bytes());
    assert!(reads(&elsewhere, "T1").await);
}

#[tokio::test]
async fn another_master_key_is_refused_at_opening_with_both_fingerprints_and_changes_nothing() {
    let db = memory();
    install(&db.store().await, "T1").await;
    let before = all_rows(&*db.backend).await;
    let wrong = LocalKeyProvider::new(master_key_of(0x22));
    let backend = Arc::clone(&db.backend);
    let error = EncryptedStore::open(backend, wrong, db.app.clone())
        .await
        .expect_err("refused");
    assert_matches!(error, KeyringError::Key(KeyError::UnknownKey { .. }));
    let shown = error.to_string();
    for key in [master_key(), master_key_of(0x22)] {
        assert!(shown.contains(&key.fingerprint().to_string()), "{shown}");
        assert!(!shown.contains(key.to_base64().as_str()), "{shown}");
    }
    assert_eq!(all_rows(&*db.backend).await, before);
}

#[tokio::test]
async fn a_retired_master_key_still_opens_what_it_wrapped() {
    let db = memory();
    install(&db.store().await, "T1").await;
    let provider = LocalKeyProvider::new(master_key_of(0x22)).with_retired(master_key());
    let store = db.store_with(provider).await;
    assert!(reads(&store, "T1").await);
    // Keys that it wraps from now on require the new master key only.
    store.rotate_data_key().await.expect("rotated");
    install(&store, "T2").await;
    let store = db.store_with(master_key_of(0x22)).await;
    assert!(reads(&store, "T2").await);
    let outcome = store.fetch(&workspace_key("T1"), None).await;
    assert_matches!(outcome, Err(Error::Key(_)));
}

#[tokio::test]
async fn wrapped_data_keys_that_were_swapped_or_changed_do_not_open() {
    let (db, store) = with_a_retired_key().await;
    let other = db.look_alike();
    other.store().await;
    let (retired, retired_row) = retired_key(&db).await;
    let (primary, primary_row) = db.primary_key().await;
    let (_, foreign_row) = other.primary_key().await;

    // The retired key is lost: rows that it sealed cannot be read, and everything else works.
    let sealed = |sealed: &backend::Sealed| backend::Row {
        sealed: sealed.clone(),
        ..retired_row.clone()
    };
    let mut changed = vec![primary_row.clone(), sealed(&primary_row.sealed)];
    changed.extend([foreign_row.clone(), sealed(&foreign_row.sealed)]);
    let bytes = retired_row.sealed.as_bytes();
    for byte in 0..bytes.len() {
        let mut bytes = bytes.to_vec();
        bytes[byte] ^= 1;
        changed.push(sealed(&backend::Sealed::from_stored(bytes)));
    }
    for row in changed {
        db.overwrite(&retired, row).await;
        let fresh = db.store().await;
        let outcome = fresh.fetch(&workspace_key("T1"), None).await;
        assert_matches!(outcome, Err(Error::Key(_)));
        assert!(reads(&fresh, "T2").await);
    }
    db.overwrite(&retired, retired_row.clone()).await;

    // The primary key is lost: the store does not open, and no process creates another key instead.
    let changed = backend::Row {
        sealed: retired_row.sealed,
        ..primary_row.clone()
    };
    for row in [foreign_row, changed] {
        db.overwrite(&primary, row.clone()).await;
        let opened = EncryptedStore::open(Arc::clone(&db.backend), local(), db.app.clone()).await;
        assert_matches!(opened, Err(KeyringError::Key(_) | KeyringError::Unreadable));
        assert_eq!(db.primary_key().await.1, row);
    }
    assert!(
        reads(&store, "T2").await,
        "a process that has the keys continues for a while"
    );
}

#[tokio::test(start_paused = true)]
async fn a_keyring_that_vanished_is_an_error_and_not_made_anew() {
    let (db, store) = with_a_retired_key().await;
    for (slot, _) in db.rows_of("keyring").await {
        let (key, _) = db.row("keyring", &slot).await;
        db.remove(&key).await;
    }
    advance(HARD_AGE).await;
    for tenant in ["T1", "T2"] {
        let outcome = store.fetch(&workspace_key(tenant), None).await;
        assert_matches!(outcome, Err(Error::Key(_)));
    }
    assert!(
        store
            .store(&in_workspace("T3").with_bot("xoxb-3"))
            .await
            .is_err()
    );
    assert!(slots(&db).await.is_empty());

    // A process that starts creates no key either, because the old one must be restored.
    let open = async |app| EncryptedStore::open(Arc::clone(&db.backend), local(), app).await;
    let error = open(db.app.clone()).await.expect_err("the app has rows");
    assert_matches!(error, KeyringError::Lost);
    assert!(slots(&db).await.is_empty());
    let other = slack_installs::ClientId::new("100000000001.200000000002").expect("an id");
    open(other).await.expect("another app's rows do not count");
}

#[tokio::test]
async fn opening_over_an_unreliable_database_succeeds_or_says_so() {
    let db = memory();
    let backend = Unreliable::new(Arc::clone(&db.backend));
    let open = async || EncryptedStore::open(backend.clone(), local(), db.app.clone()).await;

    backend.set_down(true);
    let error = open().await.expect_err("the database is down");
    assert_matches!(error, KeyringError::Backend(backend::Error::Unavailable(_)));
    backend.set_down(false);

    backend.lose_commits(1);
    let error = open().await.expect_err("the key was not written");
    assert_matches!(error, KeyringError::Backend(backend::Error::Unavailable(_)));
    assert!(slots(&db).await.is_empty());

    backend.lose_answers(1);
    open().await.expect("the key was written");
    assert_eq!(slots(&db).await.len(), 2);
}

/// At this age, every key is fetched again.
const SOFT_AGE: Duration = Duration::from_secs(4 * 60 + 30);
const HARD_AGE: Duration = Duration::from_secs(15 * 60);
const STATE: slack_installs::store::StateId = slack_installs::store::StateId([7; 32]);

fn memory() -> Db {
    Db::new(Arc::new(MemoryBackend::default()))
}

fn local() -> LocalKeyProvider {
    master_key().into()
}

/// Returns a store with T1 sealed under a retired key, and T2 under the primary.
async fn with_a_retired_key() -> (Db, Store) {
    let db = memory();
    let store = db.store().await;
    install(&store, "T1").await;
    store.rotate_data_key().await.expect("rotated");
    install(&store, "T2").await;
    (db, store)
}

/// Returns the row of the only retired key.
async fn retired_key(db: &Db) -> (backend::Key, backend::Row) {
    let (primary, _) = db.primary_key().await;
    let slots = slots(db).await.into_iter();
    let mut retired = slots.filter(|it| it.starts_with("key/") && it != primary.slot.as_str());
    let slot = retired.next().expect("one key is retired");
    db.row("keyring", &slot).await
}

async fn install(store: &Store, tenant: &str) {
    let installation = in_workspace(tenant).with_bot(&format!("xoxb-{tenant}"));
    store.store(&installation).await.expect("stored");
}

/// Reports whether the installation can be read.
async fn reads(store: &Store, tenant: &str) -> bool {
    match store.fetch(&workspace_key(tenant), None).await {
        Ok(fetched) => {
            let fetched = fetched.expect("it was installed");
            assert_eq!(bot_token(&fetched), Some(format!("xoxb-{tenant}").as_str()));
            true
        }
        Err(error) => {
            assert!(error.is_transient(), "{error:?}");
            false
        }
    }
}

/// Returns how many of 64 concurrent reads succeed.
async fn reads_at_once(store: &Store) -> usize {
    let mut tasks = JoinSet::new();
    for _ in 0..64 {
        let store = store.clone();
        tasks.spawn(async move { reads(&store, "T1").await });
    }
    tasks
        .join_all()
        .await
        .into_iter()
        .filter(|read| *read)
        .count()
}

/// Lets background tasks run until they wait. The paused clock moves only when all tasks wait.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Returns the slots of the keyring.
async fn slots(db: &Db) -> Vec<String> {
    db.rows_of("keyring")
        .await
        .into_iter()
        .map(|(slot, _)| slot)
        .collect()
}

/// Returns the data key under which a tenant's bot is sealed.
async fn sealed_under(db: &Db, tenant: &str) -> [u8; 16] {
    let (_, row) = db.row(tenant, "bot").await;
    row.sealed.as_bytes()[4..20]
        .try_into()
        .expect("the header has the key's id")
}
