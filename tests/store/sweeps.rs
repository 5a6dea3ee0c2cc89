//! When states and handled requests are swept, and what a sweep keeps.
//!
//! Time is tokio's, paused: it moves only when a test moves it, or when every task waits.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use slack_installs::backend::{Change, Expect, MemoryBackend, Partition, Version};
use slack_installs::store::{Error, SeenId, SeenStore as _, StateId};
use slack_installs::{Clock, EncryptedStore, LocalKeyProvider, StateStore};
use tokio::time::advance;

use crate::support::Db;
use crate::support::backends::Lagging;
use crate::support::installs::noon;
use crate::support::meddling::{Fate, Meddling};
use crate::support::providers::master_key;

type Swept = EncryptedStore<Arc<Meddling>>;

fn after(seconds: u64) -> SystemTime {
    noon() + Duration::from_secs(seconds)
}

fn memory() -> Db {
    Db::new(Arc::new(MemoryBackend::default()))
}

/// Returns a store whose clock is an hour past noon.
async fn late(db: &Db, backend: Meddling) -> (Arc<Meddling>, Swept) {
    let backend = Arc::new(backend);
    let provider = LocalKeyProvider::from(master_key());
    let store = db.store_over(Arc::clone(&backend), provider).await;
    (backend, store.with_clock(Clock::from_fn(|| after(3600))))
}

async fn consume(store: &impl StateStore, number: u8, until: SystemTime) {
    let is_first = store.consume(&StateId([number; 32]), until).await;
    assert!(is_first.expect("available"));
}

/// Lets background tasks run until they wait.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn flows_and_requests_have_what_is_over_swept_once_a_minute() {
    let db = memory();
    let (backend, store) = late(&db, Meddling::new(Arc::clone(&db.backend))).await;
    for sweeps in 1..=3 {
        consume(&store, 1, after(60)).await;
        settle().await;
        assert_eq!(backend.dues(), 2 * sweeps, "two lanes");
        assert!(
            db.rows()
                .await
                .iter()
                .all(|(key, _)| key.slot.as_str() != "state")
        );
        advance(Duration::from_millis(59_999)).await;
        consume(&store, 2, after(60)).await;
        settle().await;
        assert_eq!(backend.dues(), 2 * sweeps, "a minute has not passed");
        advance(Duration::from_millis(1)).await;
    }
    // Claiming a request starts a sweep too.
    let claimed = store.claim(&SeenId([3; 32]), noon(), after(60)).await;
    claimed.expect("the store is up");
    settle().await;
    assert_eq!(backend.dues(), 2 * 4);
    let slots = db.rows().await.into_iter();
    let partitions: Vec<_> = slots
        .map(|(key, _)| key.partition.name().to_owned())
        .collect();
    assert_eq!(partitions, ["keyring"; 2], "both kinds are swept");
}

#[tokio::test(start_paused = true)]
async fn what_was_written_anew_since_it_was_found_is_not_swept() {
    let db = memory();
    let store = db.store().await;
    for number in 1..=2 {
        consume(&store, number, after(60)).await;
    }
    let lagging = Lagging::since(Arc::clone(&db.backend), db.app.as_str(), after(3600)).await;
    remove(&db, 1).await;
    consume(&store, 1, after(9000)).await;
    let (_, sweeping) = late(&db, Meddling::new(Arc::new(lagging))).await;
    let swept = sweeping.sweep_expired_states().await;
    assert_eq!(
        swept.expect("a conflict is not a failure"),
        1,
        "the other state is swept"
    );
    let row = db.row(&state(1), "state").await.1;
    assert_eq!(row.due.map(|due| due.at), Some(after(9000)));
}

#[tokio::test(start_paused = true)]
async fn a_sweep_that_the_database_does_not_answer_says_so() {
    let db = memory();
    let (backend, store) = late(&db, Meddling::new(Arc::clone(&db.backend))).await;
    consume(&db.store().await, 1, after(60)).await;
    let then = Box::pin(async {});
    backend.next([Fate::Lost { done: false, then }]);
    let swept = store.sweep_expired_states().await;
    assert_matches!(swept, Err(Error::Unavailable(_)));
}

#[tokio::test(start_paused = true)]
async fn a_sweep_takes_page_after_page_and_stops_after_ten() {
    let db = memory();
    let (backend, store) = late(&db, Meddling::new(Arc::clone(&db.backend))).await;
    consume(&db.store().await, 1, after(60)).await;
    let (key, row) = db.row(&state(1), "state").await;
    for number in 0..10_500 {
        let partition = format!("{}/state/{number:05}", db.app);
        let put = Change::Put {
            slot: key.slot.clone(),
            row: slack_installs::backend::Row {
                version: Version::mint(),
                ..row.clone()
            },
            expect: Expect::Absent,
        };
        let partition = Partition::new(partition).expect("a name");
        db.backend
            .commit(&partition, &[put])
            .await
            .expect("available");
    }
    // Each lane is read page by page; the lane of handled requests is empty.
    for (swept, dues) in [(10_000, 10 + 1), (501, 1 + 1), (0, 1 + 1)] {
        let before = backend.dues();
        assert_eq!(store.sweep_expired_states().await.expect("swept"), swept);
        assert_eq!(backend.dues() - before, dues);
    }
}

/// Removes a state, as another process's sweep does.
async fn remove(db: &Db, number: u8) {
    let (key, _) = db.row(&state(number), "state").await;
    let delete = Change::Clear;
    let removed = db.backend.commit(&key.partition, &[delete]).await;
    removed.expect("available");
}

/// Returns the partition of a state.
fn state(number: u8) -> String {
    format!("state/{}", format!("{number:02x}").repeat(32))
}
