//! Moving a database between real servers.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use slack_installs::backend::{
    Change, Due, Expect, Lane, MemoryBackend, Metadata, Partition, Row, Sealed, Slot, Version,
};
use slack_installs::store::{SeenId, SeenStore as _, StateId};
use slack_installs::{
    Delete, Departure, Hold, InstallationStore as _, LifecycleStore as _, StateStore as _,
};

use crate::backends::{House, houses};
use crate::support::copying::{copy, prune, rows_of};
use crate::support::installs::{
    With as _, in_org, in_workspace, in_workspace_of, noon, rotating, user_id, workspace_key,
};
use crate::support::{Db, Store};

/// Moves from server to server and back again, with a crash during each move, while the app runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_database_goes_round_every_backend_and_comes_home_as_it_was() {
    let mut db = Db::new(Arc::new(MemoryBackend::default()));
    let mut moves = 0;
    fill(&db.store().await).await;
    for House {
        name,
        backend: house,
        ..
    } in &houses().await
    {
        // Another app's rows, which stay where they are.
        let neighbour = Db::of(db.look_alike().app, Arc::clone(house));
        let others = neighbour.store().await;
        others
            .store(&in_workspace("T1").with_bot("xoxb-other"))
            .await
            .expect("stored");
        let before = neighbour.rows().await;

        let store = db.store().await;
        let first = store.copy_to(house, None, 13).await.expect("available");
        assert!(first.copied > 0 && first.next.is_some(), "{name}");
        live(&store, moves).await;
        // The process ends here, and its cursor is lost.
        drop(store);
        let store = db.store().await;
        let copied = copy(&store, house, 13).await;
        assert_eq!(copied.refused, [""; 0], "{name}");
        let pruned = prune(&store, house, 13).await;
        store
            .finish_copy(house)
            .await
            .expect("the copy is complete");

        let rows = db.rows().await;
        let came = rows_of(&db, house).await;
        assert_eq!(came.len(), rows.len(), "{name}");
        for (row, same) in rows.iter().zip(&came) {
            assert!(row == same, "{name}: {:?}", row.0);
        }
        assert_eq!(pruned.kept, rows.len(), "{name}");
        assert_eq!(neighbour.rows().await, before, "{name}");

        let moved = Db::of(db.app.clone(), Arc::clone(house));
        let verified = moved.store().await.verify(None, 1000).await;
        let verified = verified.expect("available");
        assert_eq!(verified.unreadable, [""; 0], "{name}");
        assert_eq!(verified.opened, rows.len(), "{name}");
        println!("moved to {name}: {} rows", rows.len());
        db = moved;
        moves += 1;
    }
    let user = user_id("U1");
    let store = db.store().await;
    let found = store.fetch(&workspace_key("T1"), Some(&user)).await;
    assert!(
        found
            .expect("opens")
            .expect("the row was moved")
            .user
            .is_some()
    );
    let is_first = store.consume(&STATE, noon()).await.expect("available");
    assert!(!is_first, "the row was moved");
}

/// Rows that some backends accept and others reject: they break the contract, or have no known
/// form.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_row_that_a_backend_does_not_take_is_named_and_no_other_is_lost() {
    let db = Db::new(Arc::new(MemoryBackend::default()));
    let store = db.store().await;
    for tenant in 0..5 {
        let installation = in_workspace(&format!("T{tenant}")).with_bot("xoxb-1");
        store.store(&installation).await.expect("stored");
    }
    let sound = db.rows().await;
    let tenant = Partition::new(format!("{}/T1", db.app)).expect("a name");
    for (slot, row) in malformed_rows() {
        let put = Change::Put {
            slot: Slot::new(slot).expect("a name"),
            row,
            expect: Expect::Absent,
        };
        db.backend.commit(&tenant, &[put]).await.expect("available");
    }
    let malformed: Vec<_> = db.rows().await;
    let malformed: Vec<_> = malformed
        .into_iter()
        .filter(|row| !sound.contains(row))
        .collect();
    assert_eq!(malformed.len(), malformed_rows().len());
    let mut refusals = Vec::new();
    let houses = houses().await;
    for House {
        name,
        backend: house,
        ..
    } in &houses
    {
        let copied = copy(&store, house, 4).await;
        let came = rows_of(&db, house).await;
        for row in &sound {
            assert!(came.contains(row), "{name}: {:?}", row.0);
        }
        for row in &malformed {
            let place = format!("{} {}: ", row.0.partition, row.0.slot);
            let refused = copied.refused.iter().any(|it| it.starts_with(&place));
            // Either the target has the row unchanged, or it has no such row and the row is named.
            assert_ne!(came.contains(row), refused, "{name}: {:?}", row.0);
            if refused {
                refusals.push(format!("{name} {}", row.0.slot));
            }
        }
        assert_eq!(
            came.len() + copied.refused.len(),
            sound.len() + malformed.len()
        );
    }
    for House { name, refuses, .. } in &houses {
        for slot in *refuses {
            let certain = format!("{name} {slot}");
            assert!(refusals.contains(&certain), "{certain}: {refusals:?}");
        }
    }
}

fn malformed_rows() -> Vec<(&'static str, Row)> {
    let row = |metadata: &str, sealed: usize, at: Option<SystemTime>| Row {
        version: Version::mint(),
        metadata: Metadata::new(metadata),
        sealed: Sealed::from_stored([b"SLE1".as_slice(), &vec![7; sealed]].concat()),
        due: at.map(|at| Due {
            lane: Lane::Refresh,
            at,
        }),
    };
    let at = |time| Some(SystemTime::UNIX_EPOCH + time);
    let long = format!(r#"{{"kind":"{}"}}"#, "x".repeat(450 << 10));
    vec![
        (
            "due/fraction",
            row("{}", 200, at(Duration::from_millis(1_500))),
        ),
        (
            "due/too-late",
            row("{}", 200, at(Duration::from_secs(1 << 40))),
        ),
        ("metadata/empty", row("", 200, None)),
        ("metadata/large", row(&long, 200, None)),
        ("metadata/no-json", row("not JSON", 200, None)),
        ("metadata/nul", row("{\"kind\":\"\u{0}\"}", 200, None)),
        ("sealed/empty", row("{}", 0, None)),
        ("sealed/large", row("{}", 450 << 10, None)),
    ]
}

/// Stores one of everything that an app keeps.
async fn fill(store: &Store) {
    for tenant in 0..12 {
        let mut installation = in_workspace(&format!("T{tenant}"))
            .with_bot("xoxb-1")
            .with_user("U1", &format!("xoxp-{tenant}"))
            .with_webhook("C1", "https://hooks/1");
        installation.bot.as_mut().expect("a bot").grant = rotating(
            &format!("xoxe.xoxb-1-{tenant}"),
            &format!("xoxe-1-{tenant}"),
        );
        store.store(&installation).await.expect("stored");
    }
    let mut large = in_workspace_of("E1", "T100").with_bot("xoxb-1");
    large.metadata = Some("\u{1f600}x\u{0}".repeat(20_000));
    store.store(&large).await.expect("stored");
    store
        .store(&in_org("E1", None).with_bot("xoxb-e"))
        .await
        .expect("stored");
    let hold = Hold {
        is_on: true,
        reason: "ticket \"1\" \u{1f600}".to_owned(),
        at: noon(),
    };
    let held = store.hold(&workspace_key("T2"), &hold).await;
    assert!(held.expect("available"));
    let later = noon() + Duration::from_secs(600);
    assert!(store.consume(&STATE, later).await.expect("available"));
    let seen = store.claim(&SeenId([9; 32]), noon(), later).await;
    seen.expect("available");
    let gone = store.fetch(&workspace_key("T11"), None).await;
    let revision = gone.expect("available").expect("stored").revision;
    let leaving = Departure::new(workspace_key("T11"), "app_uninstalled", noon());
    store
        .purge(&leaving, revision, Some(later))
        .await
        .expect("purged");
    store.rotate_data_key().await.expect("rotated");
}

/// Changes rows while they are copied, as a running app does.
async fn live(store: &Store, round: usize) {
    let name = |of: &str| format!("T{of}{round}");
    for installation in [
        in_workspace(&name("20")).with_bot("xoxb-new"),
        in_workspace("T1").with_bot("xoxb-again"),
    ] {
        store.store(&installation).await.expect("stored");
    }
    let gone = workspace_key(&format!("T{}", round + 3));
    let went = store.delete(&gone, &Delete::all()).await;
    assert!(went.expect("available"));
    store.rotate_data_key().await.expect("rotated");
}

const STATE: StateId = StateId([7; 32]);
