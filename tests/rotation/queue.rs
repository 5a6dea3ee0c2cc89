//! What is due, behind rows that are none of the worker's business.

use std::time::Duration;

use slack_installs::backend::{
    Backend as _, Change, Due, Expect, Lane, Metadata, Partition, Row, Sealed, Slot, Version,
};
use slack_installs::store::{Credential, RotationStore as _, StateId, StateStore as _};

use super::installed;
use super::support::rotation::{HOUR, Stage};

/// Rows of another app that shares the database and runs no worker: overdue for a day.
async fn litter(stage: &Stage, rows: usize) {
    let now = stage.fake.clock().now();
    for number in 0..rows {
        let partition = Partition::new(format!("1.other/T0OTHER{number:05}")).expect("a name");
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

async fn issue_states(stage: &Stage, states: u16) {
    let ends = stage.fake.clock().now() + Duration::from_secs(600);
    for number in 0..states {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&number.to_be_bytes());
        let issued = stage.store.issue(&StateId(id), b"state", ends).await;
        issued.expect("a memory backend commits");
    }
}

#[tokio::test(start_paused = true)]
async fn overdue_rows_of_another_app_do_not_hide_a_chain() {
    let stage = installed().await;
    litter(&stage, 3000).await;
    stage.expire();
    let due = stage.store.due(stage.fake.clock().now(), None, 100).await;
    let (due, _) = due.expect("answers");
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].credential, Credential::Bot);
}

#[tokio::test(start_paused = true)]
async fn expired_states_do_not_hide_a_chain() {
    let stage = installed().await;
    issue_states(&stage, 300).await;
    stage.expire();
    let due = stage.store.due(stage.fake.clock().now(), None, 100).await;
    assert_eq!(due.expect("answers").0.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn overdue_rows_of_another_app_do_not_keep_expired_states_alive() {
    let stage = installed().await;
    litter(&stage, 1500).await;
    issue_states(&stage, 10).await;
    stage.fake.advance(HOUR);
    let store = stage.store.clone().with_clock(stage.fake.clock());
    assert_eq!(store.sweep_expired_states().await.expect("swept"), 10);
    let rows = super::support::all_rows(stage.store.backend()).await;
    let others = rows.iter().filter(|(key, _)| {
        let partition = key.partition.as_str();
        partition.starts_with("1.other/")
    });
    assert_eq!(others.count(), 1500, "nobody else's row is touched");
}

#[tokio::test(start_paused = true)]
async fn a_sweep_goes_on_until_nothing_has_expired() {
    let stage = installed().await;
    issue_states(&stage, 2500).await;
    stage.fake.advance(HOUR);
    let store = stage.store.clone().with_clock(stage.fake.clock());
    assert_eq!(store.sweep_expired_states().await.expect("swept"), 2500);
}
