//! Data keys are wrapped again, under a new master key or by a new provider.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use slack_installs::keys::KeyProviders;
use slack_installs::{DataKey, KeyContext, KeyId, KeyProvider, Rewrapped};

use super::phases::{World, keys_of, primary_of, promote};
use super::phases_killed::{Way, failing};
use super::*;

fn both() -> LocalKeyProvider {
    LocalKeyProvider::new(master_key_of(0x22)).with_retired(master_key())
}

fn new_only() -> LocalKeyProvider {
    LocalKeyProvider::new(master_key_of(0x22))
}

/// T1 and T2 under two data keys, which the old master key wraps.
async fn under_the_old_one() -> (World, [KeyId; 2]) {
    let world = World::new();
    let store = world.process().await;
    install(&store, "T1").await;
    let keys = promote(&store).await;
    install(&store, "T2").await;
    (world, keys)
}

async fn rewrap<B: backend::Backend>(store: &EncryptedStore<B>) -> Rewrapped {
    store.keys().rewrap().await.expect("available")
}

fn ids(report: &Rewrapped) -> (Vec<KeyId>, Vec<KeyId>, Vec<KeyId>) {
    let failed = report.failed.iter().map(|(id, _)| *id);
    (
        report.rewrapped.clone(),
        report.current.clone(),
        failed.collect(),
    )
}

async fn of_tenants(db: &Db) -> Vec<(backend::Key, backend::Row)> {
    let mut rows = db.rows().await;
    rows.retain(|(key, _)| key.partition.name() != "keyring");
    rows
}

#[tokio::test(start_paused = true)]
async fn after_a_re_wrap_the_new_master_key_alone_opens_every_row() {
    let (world, keys) = under_the_old_one().await;
    let app = world.clone();
    let opened = EncryptedStore::open(Arc::clone(&app.db.backend), new_only(), app.db.app.clone());
    assert_matches!(
        opened.await,
        Err(KeyringError::Key(KeyError::UnknownKey { .. }))
    );
    let operator = world.process_by(both()).await;
    let rows = of_tenants(&world.db).await;
    let listed = keys_of(&operator).await;
    assert_eq!(ids(&rewrap(&operator).await), (keys.into(), vec![], vec![]));
    assert_eq!(of_tenants(&world.db).await, rows);
    assert_eq!(keys_of(&operator).await, listed);
    let keyring = world.db.rows_of("keyring").await;
    assert_eq!(ids(&rewrap(&operator).await), (vec![], keys.into(), vec![]));
    assert_eq!(
        world.db.rows_of("keyring").await,
        keyring,
        "nothing is done twice"
    );
    let store = world.process_by(new_only()).await;
    assert!(reads(&store, "T1").await && reads(&store, "T2").await);
    let report = store.verify(None, 100).await.expect("available");
    assert_eq!((report.unreadable, report.without_key), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_the_new_master_key_made_stays_as_it_is() {
    let (world, [first, second]) = under_the_old_one().await;
    let operator = world.process_by(both()).await;
    let third = operator.keys().add().await.expect("added");
    let report = rewrap(&operator).await;
    assert_eq!(ids(&report), (vec![first, second], vec![third], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_master_key_is_missing_fails_alone_and_stays() {
    let (world, [first, second]) = under_the_old_one().await;
    let operator = world.process_by(both()).await;
    operator.rotate_data_key().await.expect("rotated");
    let third = primary_of(&operator).await;
    let store = world.process_by(new_only()).await;
    let row = world.db.rows_of("keyring").await;
    let report = rewrap(&store).await;
    assert_eq!(ids(&report), (vec![], vec![third], vec![first, second]));
    for (_, error) in &report.failed {
        assert_matches!(error, KeyringError::Key(KeyError::UnknownKey { .. }));
    }
    assert_eq!(world.db.rows_of("keyring").await, row);
}

/// A provider that has the old key, and with the new one does less than it should.
#[derive(Debug)]
struct Half {
    inner: LocalKeyProvider,
    is_wrong: Arc<AtomicBool>,
}

#[async_trait]
impl KeyProvider for Half {
    async fn wrap(&self, key: &DataKey, context: &KeyContext<'_>) -> Result<Vec<u8>, KeyError> {
        self.inner.wrap(key, context).await
    }

    async fn unwrap(&self, wrapped: &[u8], context: &KeyContext<'_>) -> Result<DataKey, KeyError> {
        let key = self.inner.unwrap(wrapped, context).await?;
        if new_only().unwrap(wrapped, context).await.is_err() {
            Ok(key)
        } else if self.is_wrong.load(Ordering::SeqCst) {
            Ok(DataKey::from_bytes([0x77; 32]))
        } else {
            Err(KeyError::Refused {
                reason: "on purpose".to_owned(),
            })
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_the_provider_would_not_unwrap_again_is_not_stored() {
    let (world, keys) = under_the_old_one().await;
    let is_wrong = Arc::new(AtomicBool::new(false));
    let provider = Half {
        inner: both(),
        is_wrong: Arc::clone(&is_wrong),
    };
    let operator = world.process_by(provider).await;
    let keyring = world.db.rows_of("keyring").await;
    let report = rewrap(&operator).await;
    assert_eq!(ids(&report), (vec![], vec![], keys.into()));
    assert_matches!(
        report.failed[0].1,
        KeyringError::Key(KeyError::Refused { .. })
    );
    is_wrong.store(true, Ordering::SeqCst);
    let report = rewrap(&operator).await;
    assert_eq!(ids(&report), (vec![], vec![], keys.into()));
    assert_matches!(report.failed[0].1, KeyringError::Mismatch);
    assert_eq!(world.db.rows_of("keyring").await, keyring);
    assert!(reads(&world.process().await, "T1").await);
}

#[tokio::test(start_paused = true)]
async fn a_re_wrap_that_fails_at_any_commit_is_finished_by_the_next_process() {
    use Way::{KilledAfter, KilledBefore, LostCommit, LostResponse};
    for way in [KilledBefore, KilledAfter, LostCommit, LostResponse] {
        for nth in 0..2 {
            let (world, keys) = under_the_old_one().await;
            let backend = failing(&world.db, nth, way);
            let operator = world.process_over(backend, both()).await;
            let interrupted = operator.keys().rewrap().await;
            // A lost response is found out by reading.
            assert_eq!(interrupted.is_ok(), way == LostResponse, "{way:?} {nth}");
            let is_applied = matches!(way, KilledAfter | LostResponse);
            let done = if way == LostResponse {
                2
            } else {
                nth + usize::from(is_applied)
            };
            let next = world.process_by(both()).await;
            let report = rewrap(&next).await;
            let left = keys[done..].to_vec();
            let current = keys[..done].to_vec();
            assert_eq!(ids(&report), (left, current, vec![]), "{way:?} {nth}");
            let store = world.process_by(new_only()).await;
            assert!(reads(&store, "T1").await && reads(&store, "T2").await);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn keys_that_rotate_during_a_re_wrap_are_all_wrapped_in_the_end() {
    let (world, _) = under_the_old_one().await;
    let mut tasks = JoinSet::new();
    for number in 0..3 {
        let provider = Remote::over(both());
        let operator = world.process_by(provider).await;
        tasks.spawn(async move {
            if number == 0 {
                operator.rotate_data_key().await.expect("rotated");
            } else {
                // Three attempts may not be enough while others change the keyring.
                drop(operator.keys().rewrap().await);
            }
        });
    }
    tasks.join_all().await;
    let operator = world.process_by(both()).await;
    let report = rewrap(&operator).await;
    assert_eq!(
        (
            report.rewrapped.len() + report.current.len(),
            report.failed.len()
        ),
        (3, 0)
    );
    let store = world.process_by(new_only()).await;
    assert!(reads(&store, "T1").await && reads(&store, "T2").await);
}

/// The old wrapped form is still in backups, and someone may bring it back.
#[tokio::test(start_paused = true)]
async fn a_row_from_before_a_re_wrap_that_was_replayed_is_found_and_overwrites_nothing() {
    let (world, [retired, _]) = under_the_old_one().await;
    let slot = format!("key/{retired}");
    let (key, old_row) = world.db.row("keyring", &slot).await;
    let operator = world.process_by(both()).await;
    rewrap(&operator).await;
    world.db.overwrite(&key, old_row).await;
    let with_both = world.process_by(both()).await;
    assert!(reads(&with_both, "T1").await, "it is the same data key");
    let store = world.process_by(new_only()).await;
    let rows = world.db.rows().await;
    let again = in_workspace("T1").with_bot("xoxb-again");
    assert_matches!(store.store(&again).await, Err(Error::Key(_)));
    assert_eq!(world.db.rows().await, rows);
    assert!(reads(&store, "T2").await);
    let report = store.verify(None, 100).await.expect("available");
    assert_eq!(report.unreadable, [""; 0]);
    assert_eq!(report.without_key.len(), 3, "{report:?}");
    // It is repaired by one more re-wrap.
    assert_eq!(rewrap(&with_both).await.rewrapped, [retired]);
    advance(Duration::from_secs(1)).await;
    assert!(reads(&store, "T1").await);
}

/// A provider of the app's own. Its wrapped keys do not say by which key they are wrapped.
#[derive(Debug)]
struct Foreign(LocalKeyProvider);

#[async_trait]
impl KeyProvider for Foreign {
    async fn wrap(&self, key: &DataKey, context: &KeyContext<'_>) -> Result<Vec<u8>, KeyError> {
        let wrapped = self.0.wrap(key, context).await?;
        Ok([b"foreign".as_slice(), &wrapped].concat())
    }

    async fn unwrap(&self, wrapped: &[u8], context: &KeyContext<'_>) -> Result<DataKey, KeyError> {
        let wrapped = wrapped.strip_prefix(b"foreign").ok_or(KeyError::Changed)?;
        self.0.unwrap(wrapped, context).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_provider_wraps_all_keys_again_and_then_the_old_provider_is_not_needed() {
    let (world, keys) = under_the_old_one().await;
    let foreign = || Foreign(LocalKeyProvider::new(master_key_of(0x33)));
    let operator = world
        .process_by(KeyProviders::new(foreign()).with_retired(local()))
        .await;
    for _ in 0..2 {
        let report = rewrap(&operator).await;
        assert_eq!(ids(&report), (keys.into(), vec![], vec![]));
    }
    let store = world.process_by(foreign()).await;
    assert!(reads(&store, "T1").await && reads(&store, "T2").await);
    // And back.
    let operator = world
        .process_by(KeyProviders::new(local()).with_retired(foreign()))
        .await;
    assert_eq!(rewrap(&operator).await.rewrapped, keys);
    assert_eq!(rewrap(&operator).await.current, keys);
    assert!(reads(&world.process().await, "T1").await);
}
