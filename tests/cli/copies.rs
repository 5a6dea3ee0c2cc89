//! `copy` and `migrate`.

use slack_installs::backend::{Backend, Row, Scope, Sealed};

use super::trial::fill;
use super::{House, open_sqlite};
use crate::support::app::{ADA, ALPHA};

const COPY: [&str; 3] = ["copy", "env:SLACK_INSTALLS_URL", "sqlite:copy.sqlite3"];

#[tokio::test]
async fn a_copy_is_a_backup_that_opens_and_a_flipped_byte_is_found() {
    let house = House::new().await;
    house.install(ADA).await;
    let ran = house.run_json(&COPY).await;
    ran.ends(0);
    let rows = house.rows().await.len();
    assert_eq!(ran.json()["rows"], rows);
    assert_eq!(ran.json()["is_finished"], true);
    let verify = ["verify", "--database", "sqlite:copy.sqlite3"];
    assert_eq!(house.run_json(&verify).await.json()["opened"], rows);
    // A finished copy is a store, and no other copy may replace it.
    let again = house.run(&COPY).await;
    again.ends(4);
    assert!(!again.err.contains("not finished"), "{again:?}");

    let backup = open_sqlite(&house.path("copy.sqlite3")).await;
    let (place, row) = house.row(ALPHA, "bot").await;
    let mut bytes = row.sealed.as_bytes().to_vec();
    *bytes.last_mut().expect("a sealed row has bytes") ^= 1;
    let row = Row {
        sealed: Sealed::from_stored(bytes),
        ..row
    };
    let put = slack_installs::backend::Change::Put {
        slot: place.slot.clone(),
        row,
        expect: slack_installs::backend::Expect::Any,
    };
    let commit = backup.commit(&place.partition, &[put]).await;
    commit.expect("the file is a database");
    let ran = house.run(&verify).await;
    assert!(
        ran.ends(8).contains(&format!("damaged: {place}")),
        "{ran:?}"
    );
}

#[tokio::test]
async fn an_unfinished_copy_is_no_store_until_it_is_finished() {
    let house = House::new().await;
    house.install(ADA).await;
    let ran = house
        .run_json(&[&COPY[..], &["--no-finish"]].concat())
        .await;
    ran.ends(0);
    assert_eq!(ran.json()["is_finished"], false);
    let stats = ["stats", "--database", "sqlite:copy.sqlite3"];
    let ran = house.run(&stats).await;
    ran.ends(4);
    // Meanwhile, one workspace leaves, and another one comes.
    house.install("U0BRAVO0001").await;
    let purge = ["purge", ALPHA, "--reason", "r", "--no-note", "--yes"];
    house.run(&purge).await.ends(0);
    let ran = house.run_json(&COPY).await;
    ran.ends(0);
    let rows = house.rows().await.len();
    assert_eq!(ran.json()["rows"], rows);
    assert!(ran.json()["removed"].as_u64() > Some(0), "{ran:?}");
    let target = open_sqlite(&house.path("copy.sqlite3")).await;
    assert_eq!(count(&*target).await, rows);
    assert_eq!(house.run_json(&stats).await.json()["workspaces"], 1);
}

/// Returns the number of rows.
pub(crate) async fn count(database: &dyn Backend) -> usize {
    let (mut rows, mut from) = (0, None);
    loop {
        let page = database.scan(&Scope::Everything, from, 1000).await;
        let page = page.expect("the database is up");
        rows += page.rows.len();
        from = page.next;
        if from.is_none() {
            return rows;
        }
    }
}

/// Copies, and kills the copy twice in its middle.
pub(crate) async fn killed_twice(house: &House, copy: &[&str], target: &dyn Backend) {
    for _ in 0..2 {
        let before = count(target).await;
        let mut running = house.command(copy).spawn().expect("the program starts");
        while count(target).await < before + 40 {
            let is_over = running.try_wait().expect("a child").is_some();
            assert!(!is_over, "the copy was too fast to be killed");
        }
        running.start_kill().expect("it runs");
        assert!(running.wait().await.expect("a child").code().is_none());
        // What is there is no store yet.
        let ran = house.run(&["stats", "--database", copy[2]]).await;
        ran.ends(4);
        assert!(ran.err.contains("rows are being copied"), "{ran:?}");
    }
}

#[tokio::test]
async fn a_copy_that_was_killed_twice_continues_and_every_row_opens() {
    let house = House::new().await;
    fill(&house.app.store, 100).await;
    let target = open_sqlite(&house.path("copy.sqlite3")).await;
    killed_twice(&house, &COPY, &*target).await;
    house.run(&COPY).await.ends(0);
    let verify = ["verify", "--database", "sqlite:copy.sqlite3"];
    let opened = &house.run_json(&verify).await.json()["opened"];
    assert_eq!(*opened, house.rows().await.len());
}

#[tokio::test]
async fn migrate_creates_the_tables_and_a_dry_run_creates_nothing() {
    let mut house = House::new().await;
    house.set("SLACK_INSTALLS_URL", Some("sqlite:new.sqlite3"));
    let ran = house.run_json(&["migrate", "--dry-run"]).await;
    ran.ends(0);
    assert_eq!(ran.json()["outcome"], "would_migrate");
    assert!(!house.path("new.sqlite3").exists());
    house.run(&["stats"]).await.ends(5);
    let ran = house.run_json(&["migrate"]).await;
    assert_eq!(ran.json()["outcome"], "migrated");
    let ran = house.run_json(&["migrate"]).await;
    assert_eq!(ran.json()["outcome"], "nothing_to_do");
    // A report makes no data key.
    house.run(&["stats"]).await.ends(4);
    let new = open_sqlite(&house.path("new.sqlite3")).await;
    let page = new.scan(&Scope::Everything, None, 10).await;
    assert!(page.expect("a database").rows.is_empty());
}
