//! A fault of one key is a fault of that key, and ends in time.

use slack_installs::KeyId;
use tokio::time::Instant;

use super::*;
use crate::support::attacker::key_id;
use crate::support::providers::Fault;

/// Returns the ids of the retired key and of the primary.
async fn ids(db: &Db) -> [KeyId; 2] {
    let id = |key: &backend::Key| key_id(key.slot.as_str().strip_prefix("key/").expect("a key"));
    [id(&retired_key(db).await.0), id(&db.primary_key().await.0)]
}

/// Returns whether this outcome is a fault of a key.
fn is_of_key<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(error @ Error::Key(_)) if error.is_transient())
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_fails_every_call_in_time() {
    let (db, _) = with_a_retired_key().await;
    let provider = Remote::new();
    let store = db.store_by(provider.clone()).await;
    provider.set(Fault::Hangs);
    let began = Instant::now();
    let opened = EncryptedStore::open(Arc::clone(&db.backend), provider.clone(), db.app.clone());
    assert_matches!(
        opened.await,
        Err(KeyringError::Key(KeyError::Unavailable(_)))
    );
    assert!(began.elapsed() <= DEADLINE, "{:?}", began.elapsed());
    let began = Instant::now();
    assert!(store.rotate_data_key().await.is_err());
    assert!(began.elapsed() <= DEADLINE, "{:?}", began.elapsed());
    let began = Instant::now();
    assert!(is_of_key(&store.fetch(&workspace_key("T1"), None).await));
    assert!(began.elapsed() <= DEADLINE, "{:?}", began.elapsed());
    assert!(reads(&store, "T2").await, "its key is in memory");
    advance(HARD_AGE).await;
    for _ in 0..3 {
        let began = Instant::now();
        let outcomes = [
            store.fetch(&workspace_key("T2"), None).await.map(drop),
            store.consume(&STATE, noon()).await.map(drop),
        ];
        assert!(outcomes.iter().all(is_of_key), "{outcomes:?}");
        assert!(began.elapsed() <= DEADLINE, "{:?}", began.elapsed());
    }
    provider.set(None);
    advance(Duration::from_secs(1)).await;
    assert!(reads(&store, "T1").await && reads(&store, "T2").await);
}

/// A handler that gives up before the deadline must not make the next one wait from the beginning.
#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_ends_no_call_that_others_wait_for() {
    let (db, provider) = (memory(), Remote::new());
    let store = db.store_by(provider.clone()).await;
    install(&store, "T1").await;
    advance(HARD_AGE).await;
    provider.set(Fault::Hangs);
    let began = Instant::now();
    for _ in 0..3 {
        let fetch = tokio::time::timeout(Duration::from_millis(500), reads(&store, "T1"));
        assert!(fetch.await.is_err());
    }
    assert!(!reads(&store, "T1").await);
    assert!(began.elapsed() <= DEADLINE, "{:?}", began.elapsed());
    assert_eq!(provider.unwraps(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_fails_no_tenant_of_another_key() {
    for fault in [Fault::Refused, Fault::Down, Fault::Hangs] {
        let (db, _) = with_a_retired_key().await;
        let [retired, _] = ids(&db).await;
        let provider = Remote::new();
        provider.set_of(retired, fault);
        let store = db.store_by(provider.clone()).await;
        for _ in 0..3 {
            let outcome = store.fetch(&workspace_key("T1"), None).await;
            assert!(is_of_key(&outcome), "{outcome:?}");
            let began = Instant::now();
            assert!(reads(&store, "T2").await);
            install(&store, "T3").await;
            assert_eq!(began.elapsed(), Duration::ZERO, "nobody waits for that key");
        }
        assert_eq!(provider.unwraps_of(retired), 1, "the failure is remembered");
        provider.set_of(retired, None);
        advance(Duration::from_secs(1)).await;
        assert!(reads(&store, "T1").await);
    }
}

/// The manifest is sealed under the primary. A process that knows it needs no primary to read.
#[tokio::test(start_paused = true)]
async fn a_refused_primary_fails_no_tenant_of_a_retired_key() {
    let (db, _) = with_a_retired_key().await;
    let [_, primary] = ids(&db).await;
    let provider = Remote::new();
    let store = db.store_by(provider.clone()).await;
    provider.set_of(primary, Fault::Refused);
    for _ in 0..40 {
        assert!(reads(&store, "T1").await);
        advance(Duration::from_secs(60)).await;
        settle().await;
    }
    assert!(is_of_key(&store.fetch(&workspace_key("T2"), None).await));
    let again = in_workspace("T1").with_bot("xoxb-again");
    let rows = db.rows_of("T1").await;
    assert!(is_of_key(&store.store(&again).await));
    assert_eq!(db.rows_of("T1").await, rows);
    provider.set_of(primary, None);
    advance(Duration::from_secs(1)).await;
    assert!(reads(&store, "T2").await);
    store.store(&again).await.expect("stored");
}

#[tokio::test(start_paused = true)]
async fn five_thousand_reads_at_once_cost_one_call_for_each_key() {
    let (db, _) = with_a_retired_key().await;
    let ids = ids(&db).await;
    let provider = Remote::new();
    let store = db.store_by(provider.clone()).await;
    assert!(reads(&store, "T1").await);
    advance(HARD_AGE).await;
    let before = ids.map(|id| provider.unwraps_of(id));
    let mut tasks = JoinSet::new();
    for number in 0..5_000 {
        let store = store.clone();
        let tenant = ["T1", "T2"][number % 2];
        tasks.spawn(async move { reads(&store, tenant).await });
    }
    assert!(tasks.join_all().await.into_iter().all(|read| read));
    assert_eq!(
        ids.map(|id| provider.unwraps_of(id)),
        before.map(|it| it + 1)
    );
}

/// Reads and writes for 10 minutes without the provider, beginning at every phase of the keys' age.
#[tokio::test(start_paused = true)]
async fn ten_minutes_without_the_provider_fail_nothing_under_load() {
    for fault in [Fault::Down, Fault::Hangs] {
        for phase in 0..11 {
            let (db, _) = with_a_retired_key().await;
            let provider = Remote::new();
            let store = db.store_by(provider.clone()).await;
            let work = async || {
                assert!(reads(&store, "T1").await && reads(&store, "T2").await);
                install(&store, "T3").await;
                tokio::time::sleep(Duration::from_secs(2)).await;
            };
            work().await;
            for _ in 0..phase * 15 {
                work().await;
            }
            provider.set(fault);
            for _ in 0..300 {
                work().await;
            }
            provider.set(None);
            for _ in 0..30 {
                work().await;
            }
            // The keys are young again.
            provider.set(fault);
            for _ in 0..300 {
                work().await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn past_the_bound_everything_fails_closed_and_recovers_within_seconds() {
    let (db, _) = with_a_retired_key().await;
    let provider = Remote::new();
    let store = db.store_by(provider.clone()).await;
    assert!(reads(&store, "T1").await);
    let rows = db.rows().await;
    provider.set(Fault::Hangs);
    advance(HARD_AGE).await;
    for _ in 0..100 {
        let began = Instant::now();
        let new = |tenant: &str| in_workspace(tenant).with_bot("xoxb-new");
        let keys = ["T1", "T2"].map(workspace_key);
        let new = ["T1", "T3"].map(new);
        let outcomes = tokio::join!(
            store.fetch(&keys[0], None),
            store.fetch(&keys[1], None),
            store.store(&new[0]),
            store.store(&new[1]),
        );
        assert!(began.elapsed() <= DEADLINE, "{:?}", began.elapsed());
        assert!(is_of_key(&outcomes.0) && is_of_key(&outcomes.1));
        assert!(is_of_key(&outcomes.2) && is_of_key(&outcomes.3));
        advance(Duration::from_millis(700)).await;
    }
    assert_eq!(db.rows().await, rows, "nothing is lost");
    provider.set(None);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(reads(&store, "T1").await && reads(&store, "T2").await);
    install(&store, "T3").await;
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_again_at_different_times() {
    let mut ages = std::collections::HashSet::new();
    for _ in 0..8 {
        let (db, provider) = (memory(), Remote::new());
        let store = db.store_by(provider.clone()).await;
        install(&store, "T1").await;
        let began = Instant::now();
        while provider.unwraps() == 1 {
            assert!(reads(&store, "T1").await);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let age = began.elapsed().as_secs();
        assert!((4 * 60..=SOFT_AGE.as_secs() + 1).contains(&age), "{age}");
        ages.insert(age);
    }
    assert!(ages.len() > 1, "{ages:?}");
}

/// 2 s, and the time of the call that is simulated.
const DEADLINE: Duration = Duration::from_millis(2_100);
