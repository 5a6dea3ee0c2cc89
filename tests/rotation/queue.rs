//! Due chains behind due rows that the worker does not handle.

use slack_installs::backend::{
    Backend as _, Change, Due, Expect, Lane, Metadata, Partition, Row, Sealed, Slot, Version,
};
use slack_installs::rotation::WorkerConfig;
use slack_installs::store::{Chain, Credential, RotationStore as _, StateId, StateStore as _};
use slack_installs::testing::Rotation;

use super::support::hooked_chains::Way;
use super::support::rotation::{ALPHA, HOUR, Stage, secs, spawn_worker};

/// Writes rows of another app that shares the database and runs no worker. They are overdue by a
/// day.
async fn litter(stage: &Stage, rows: usize) {
    litter_of("1.other", stage, rows).await;
}

/// Writes chains that do not open. They are overdue by a day.
async fn litter_of(app: &str, stage: &Stage, rows: usize) {
    let now = stage.fake.clock().now();
    for number in 0..rows {
        let partition = Partition::new(format!("{app}/T0OTHER{number:05}")).expect("a name");
        let row = Row {
            version: Version::mint(),
            metadata: Metadata::new("{}"),
            sealed: Sealed::from_stored(Vec::new()),
            due: Some(Due {
                lane: Lane::Refresh,
                at: now - 24 * HOUR,
            }),
        };
        let slot = Slot::new("bot").expect("a name");
        let expect = Expect::Absent;
        let put = Change::Put { slot, row, expect };
        let committed = stage.store.backend().commit(&partition, &[put]).await;
        committed.expect("a memory backend commits");
    }
}

async fn use_states(stage: &Stage, states: u16) {
    let ends = stage.fake.clock().now() + secs(600);
    // By this clock, nothing has expired yet when the store sweeps in the background.
    let store = stage.store.clone().with_clock(stage.fake.clock());
    for number in 0..states {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&number.to_be_bytes());
        let is_first = store.consume(&StateId(id), ends).await;
        assert!(is_first.expect("a memory backend commits"));
    }
}

#[tokio::test(start_paused = true)]
async fn overdue_rows_of_another_app_do_not_hide_a_chain() {
    let stage = Stage::installed().await;
    litter(&stage, 3000).await;
    stage.expire();
    let due = stage.store.due(stage.fake.clock().now(), None, 100).await;
    let (due, _) = due.expect("available");
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].credential, Credential::Bot);
}

/// More chains than a worker reads before it returns to the first ones.
#[tokio::test(start_paused = true)]
async fn chains_that_do_not_open_do_not_hide_one_that_does() {
    let stage = Stage::installed().await;
    litter_of(stage.fake.client_id().as_str(), &stage, 5000).await;
    stage.expire();
    let rotator = stage.rotator();
    let worker = spawn_worker(&rotator);
    tokio::time::sleep(secs(300)).await;
    assert_eq!(stage.refreshes(), 1);
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn expired_states_do_not_hide_a_chain() {
    let stage = Stage::installed().await;
    use_states(&stage, 300).await;
    stage.expire();
    let due = stage.store.due(stage.fake.clock().now(), None, 100).await;
    assert_eq!(due.expect("available").0.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn overdue_rows_of_another_app_do_not_keep_expired_states_alive() {
    let stage = Stage::installed().await;
    litter(&stage, 1500).await;
    use_states(&stage, 10).await;
    stage.fake.advance(HOUR);
    let store = stage.store.clone().with_clock(stage.fake.clock());
    assert_eq!(store.sweep_expired_states().await.expect("swept"), 10);
    let rows = super::support::all_rows(stage.store.backend()).await;
    let others = rows.iter().filter(|(key, _)| {
        let partition = key.partition.as_str();
        partition.starts_with("1.other/")
    });
    assert_eq!(others.count(), 1500, "other apps' rows are unchanged");
}

#[tokio::test(start_paused = true)]
async fn a_sweep_goes_on_until_nothing_has_expired() {
    let stage = Stage::installed().await;
    use_states(&stage, 2500).await;
    stage.fake.advance(HOUR);
    let store = stage.store.clone().with_clock(stage.fake.clock());
    assert_eq!(store.sweep_expired_states().await.expect("swept"), 2500);
}

/// A whole page of chains that do not open is skipped for a minute.
#[tokio::test(start_paused = true)]
async fn a_page_that_is_left_alone_does_not_hide_the_next_one() {
    let stage = Stage::new(Rotation::default()).await;
    stage.fleet(100).await;
    stage.expire();
    stage.install(ALPHA, "chat:write", "").await;
    let rotator = stage.rotator_with_updates(|number| match number {
        0..100 => Way::Unreadable,
        _ => Way::Done,
    });
    let worker = tokio::spawn(async move {
        let config = WorkerConfig {
            rate: 100,
            ..WorkerConfig::default()
        };
        rotator.work(config).await;
    });
    tokio::time::sleep(secs(10)).await;
    let now = stage.fake.clock().now();
    let overdue = |chain: &mut Chain| {
        chain.expires_at = Some(now);
        chain.due_at = Some(now);
    };
    stage.change(overdue).await;
    tokio::time::sleep(secs(20)).await;
    assert_eq!(stage.bot_chain().await.chain.generation, 1);
    worker.abort();
}
