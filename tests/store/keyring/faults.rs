//! Keys when a provider fails or refuses, and keyrings that are lost, incomplete or changed.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use slack_installs::{ClientId, DataKey, KeyContext, KeyProvider};

use super::*;
use crate::support::backends::Interrupted;
use crate::support::meddling::Meddling;

/// A provider that refuses to unwrap while `refuses` is set.
#[derive(Debug)]
struct Refusing {
    inner: LocalKeyProvider,
    refuses: Arc<AtomicBool>,
}

#[async_trait]
impl KeyProvider for Refusing {
    async fn wrap(&self, key: &DataKey, context: &KeyContext<'_>) -> Result<Vec<u8>, KeyError> {
        self.inner.wrap(key, context).await
    }

    async fn unwrap(&self, wrapped: &[u8], context: &KeyContext<'_>) -> Result<DataKey, KeyError> {
        if self.refuses.load(Ordering::SeqCst) {
            Err(KeyError::Refused {
                reason: "on purpose".to_owned(),
            })
        } else {
            self.inner.unwrap(wrapped, context).await
        }
    }
}

/// Wrong permissions at a provider must not be reported as damaged data.
#[tokio::test(start_paused = true)]
async fn a_provider_that_refuses_a_key_says_nothing_about_the_rows() {
    let (db, refuses) = (memory(), Arc::new(AtomicBool::new(false)));
    let provider = Refusing {
        inner: local(),
        refuses: Arc::clone(&refuses),
    };
    let store = db.store_by(provider).await;
    install(&store, "T1").await;
    advance(HARD_AGE).await;
    refuses.store(true, Ordering::SeqCst);
    let outcome = store.fetch(&workspace_key("T1"), None).await;
    assert_matches!(outcome, Err(Error::Key(_)));
    let report = store.verify(None, 10).await.expect("the database is up");
    assert_eq!(report.unreadable, [""; 0]);
    assert_eq!((report.opened, report.without_key.len()), (0, 4));
    for row in &report.without_key {
        assert!(row.contains("on purpose"), "{row}");
    }
    refuses.store(false, Ordering::SeqCst);
    advance(Duration::from_secs(1)).await;
    assert!(reads(&store, "T1").await);
}

/// Only a row that can never be opened may be overwritten.
#[tokio::test(start_paused = true)]
async fn an_installation_whose_key_is_out_of_reach_is_not_stored_over() {
    let (db, _) = with_a_retired_key().await;
    let provider = Remote::new();
    // The store has the primary key in memory, but not the key of T1's rows.
    let store = db.store_by(provider.clone()).await;
    let rows = db.rows_of("T1").await;
    provider.set_down(true);
    let outcome = store.store(&in_workspace("T1").with_bot("xoxb-new")).await;
    assert_matches!(outcome, Err(Error::Key(_)));
    assert_eq!(db.rows_of("T1").await, rows);
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_answers_for_all_who_ask_within_a_second() {
    let (db, provider) = (memory(), Remote::new());
    let store = db.store_by(provider.clone()).await;
    install(&store, "T1").await;
    advance(HARD_AGE).await;
    provider.set_down(true);
    assert!(!reads(&store, "T1").await);
    let unwraps = provider.unwraps();
    advance(Duration::from_millis(999)).await;
    assert!(!reads(&store, "T1").await);
    assert_eq!(provider.unwraps(), unwraps);
    advance(Duration::from_millis(1)).await;
    assert!(!reads(&store, "T1").await);
    assert_eq!(provider.unwraps(), unwraps + 1);
}

#[tokio::test(start_paused = true)]
async fn a_row_under_an_unknown_key_keeps_no_other_row_from_being_read() {
    let (db, _) = with_a_retired_key().await;
    let (key, mut row) = db.row("T2", "bot").await;
    let mut sealed = row.sealed.as_bytes().to_vec();
    sealed[4] ^= 1;
    row.sealed = backend::Sealed::from_stored(sealed);
    db.overwrite(&key, row).await;
    let cold = db.store_by(Remote::new()).await;
    let outcome = cold.fetch(&workspace_key("T2"), None).await;
    assert_matches!(outcome, Err(Error::KeyringRolledBack(_)));
    assert!(reads(&cold, "T1").await, "its key is fetched at once");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_only_reads_may_write_for_15_minutes_more() {
    let (db, provider) = (memory(), Remote::new());
    let store = db.store_by(provider.clone()).await;
    install(&store, "T1").await;
    advance(SOFT_AGE).await;
    assert!(reads(&store, "T1").await);
    settle().await;
    provider.set_down(true);
    advance(HARD_AGE - Duration::from_secs(2)).await;
    install(&store, "T2").await;
}

#[tokio::test(start_paused = true)]
async fn a_retired_key_that_was_just_fetched_seals_nothing_and_is_kept_beside_the_primary() {
    let (db, store) = with_a_retired_key().await;
    let provider = Remote::new();
    let fresh = db.store_by(provider.clone()).await;
    for _ in 0..5 {
        assert!(reads(&fresh, "T1").await && reads(&fresh, "T2").await);
    }
    assert_eq!(provider.unwraps(), 2);
    install(&fresh, "T3").await;
    assert_eq!(sealed_under(&db, "T3").await, sealed_under(&db, "T2").await);
    assert_ne!(sealed_under(&db, "T3").await, sealed_under(&db, "T1").await);
    assert!(reads(&store, "T3").await);
}

#[tokio::test(start_paused = true)]
async fn a_retired_key_is_fetched_again_ahead_of_time_too() {
    let (db, _) = with_a_retired_key().await;
    let provider = Remote::new();
    let store = db.store_by(provider.clone()).await;
    assert!(reads(&store, "T1").await);
    advance(SOFT_AGE).await;
    assert!(reads(&store, "T1").await);
    settle().await;
    provider.set_down(true);
    advance(HARD_AGE - Duration::from_secs(2)).await;
    assert!(reads(&store, "T1").await);
}

#[tokio::test]
async fn a_keyring_row_of_another_form_is_refused() {
    let db = memory();
    db.store().await;
    let (key, row) = db.primary_key().await;
    let text = row.metadata.as_str();
    let id = key.slot.as_str().strip_prefix("key/").expect("a key");
    for (old, new) in [
        ("\"v\":1", "\"v\":2".to_owned()),
        ("data_key", "other_key".to_owned()),
        (id, id.to_uppercase()),
        (id, format!("+{}", &id[1..])),
        (id, id[1..].to_owned()),
        ("\"epoch\":1", "\"epoch\":-1".to_owned()),
        (",\"epoch\":1", String::new()),
    ] {
        let changed = text.replace(old, &new);
        if changed == text {
            continue;
        }
        let metadata = backend::Metadata::new(changed);
        let changed = backend::Row {
            metadata,
            ..row.clone()
        };
        db.overwrite(&key, changed).await;
        let opened = EncryptedStore::open(Arc::clone(&db.backend), local(), db.app.clone()).await;
        assert_matches!(opened, Err(KeyringError::Unreadable), "{old}");
    }
}

#[tokio::test]
async fn a_lost_keyring_is_noticed_behind_the_rows_of_others() {
    let db = memory();
    for tenant in ["T1", "T2", "T3"] {
        install(&db.store().await, tenant).await;
    }
    let (keyring, _) = db.row("keyring", "manifest").await;
    db.remove(&keyring).await;
    // The rows of this other app come first in a scan.
    let other = ClientId::new("0.0").expect("an id");
    let open = async |app| {
        let paged = Meddling::paged(Arc::clone(&db.backend), 1);
        EncryptedStore::open(paged, local(), app).await
    };
    open(other).await.expect("another app has its own keyring");
    let error = open(db.app.clone()).await.expect_err("the app has rows");
    assert_matches!(error, KeyringError::Lost);
}

#[tokio::test]
async fn a_keyring_that_another_process_makes_meanwhile_is_not_lost() {
    let db = memory();
    let backend = Interrupted::new(Arc::clone(&db.backend));
    let elsewhere = db.clone();
    backend.meanwhile(move || {
        tokio::spawn(async move { install(&elsewhere.store().await, "T1").await })
    });
    let store = db.store_over(backend, local()).await;
    let fetched = store.fetch(&workspace_key("T1"), None).await;
    assert!(fetched.expect("the row's key is the stored one").is_some());
}

#[tokio::test]
async fn a_first_key_whose_writing_nobody_confirms_opens_no_store() {
    let db = memory();
    let backend = Unreliable::new(Arc::clone(&db.backend));
    // Loses the responses of the commit and of both attempts to confirm it.
    backend.lose_answers(3);
    let opened = EncryptedStore::open(backend.clone(), local(), db.app.clone()).await;
    let error = opened.expect_err("it is unknown whether the key was written");
    assert_matches!(error, KeyringError::Backend(backend::Error::Unavailable(_)));
    let opened = EncryptedStore::open(backend, local(), db.app.clone()).await;
    opened.expect("it exists");
}
