//! How many calls the key provider gets: few, and no more for more tenants or requests.

use slack_installs::KeyId;

use super::*;
use crate::support::attacker::key_id;

/// Returns the ids of the retired key and of the primary.
async fn ids(db: &Db) -> [KeyId; 2] {
    let id = |key: &backend::Key| key_id(key.slot.as_str().strip_prefix("key/").expect("a key"));
    [id(&retired_key(db).await.0), id(&db.primary_key().await.0)]
}

/// Reads T1, whose key is retired, and T2 by turns, all at once. Every read must succeed.
async fn five_thousand_read(store: &Store) {
    let mut readers = JoinSet::new();
    for number in 0..5000 {
        let store = store.clone();
        readers.spawn(async move { reads(&store, ["T1", "T2"][number % 2]).await });
    }
    assert!(readers.join_all().await.into_iter().all(|read| read));
}

#[tokio::test(start_paused = true)]
async fn five_thousand_reads_at_the_end_of_the_keys_life_cost_one_unwrap_per_key() {
    let (db, _) = with_a_retired_key().await;
    let (ids, provider) = (ids(&db).await, Remote::new());
    let store = db.store_by(provider.clone()).await;
    five_thousand_read(&store).await;
    for _ in 0..3 {
        let before = ids.map(|id| provider.unwraps_of(id));
        advance(HARD_AGE).await;
        five_thousand_read(&store).await;
        let after = ids.map(|id| provider.unwraps_of(id));
        assert_eq!(after, before.map(|unwraps| unwraps + 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn five_thousand_reads_on_several_threads_cost_one_unwrap_per_key() {
    let (db, _) = with_a_retired_key().await;
    let (ids, provider) = (ids(&db).await, Remote::new());
    // It opens with the primary key in memory, and without the other one.
    let store = db.store_by(provider.clone()).await;
    five_thousand_read(&store).await;
    assert_eq!(ids.map(|id| provider.unwraps_of(id)), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_times_the_tenants_and_requests_cost_no_more_calls_per_hour() {
    assert_equal(100).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "takes minutes"]
async fn at_a_thousand_and_at_a_hundred_thousand_tenants_an_hour_costs_the_same_calls() {
    assert_equal(1000).await;
}

/// Asserts that the calls in an hour are the same for these tenants and for a hundred times as many.
async fn assert_equal(tenants: usize) {
    let few = calls_in_an_hour(tenants).await;
    let many = calls_in_an_hour(100 * tenants).await;
    println!("calls in an hour: {few} and {many}");
    assert_eq!(many, few);
    // Two keys, each fetched again every 4 to 4.5 minutes.
    assert!((26..=30).contains(&few), "{few}");
}

/// Returns how often the provider was called in an hour in which every tenant was read.
async fn calls_in_an_hour(tenants: usize) -> usize {
    let (db, provider) = (memory(), Remote::new());
    let store = db.store_by(provider.clone()).await.with_seed(1);
    for number in 0..tenants {
        if number == tenants / 2 {
            store.rotate_data_key().await.expect("rotated");
        }
        install(&store, &format!("T{number}")).await;
    }
    let before = provider.unwraps();
    // The same second reads tenants of both keys.
    let pairs = (0..tenants / 2).map(|number| [number, number + tenants / 2]);
    let pairs_per_second = (tenants / 2).div_ceil(3600);
    let mut pairs = pairs.cycle();
    for _ in 0..3600 {
        advance(Duration::from_secs(1)).await;
        for number in pairs.by_ref().take(pairs_per_second).flatten() {
            assert!(reads(&store, &format!("T{number}")).await);
        }
    }
    provider.unwraps() - before
}
