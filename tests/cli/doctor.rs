//! `doctor`.

use std::sync::Arc;
use std::time::Duration;

use slack_installs::store::Lease;
use slack_installs::{Hold, LocalKeyProvider, MasterKey};

use super::{House, ago, kinds};
use crate::support::app::{ADA, ALPHA, BRAVO, key};
use slack_installs::store::LifecycleStore as _;

const BOB: &str = "U0BRAVO0001";

#[tokio::test]
async fn doctor_of_a_sound_store_is_ok_and_changes_nothing() {
    let mut house = House::new().await;
    house.install(ADA).await;
    house.set("SLACK_CLIENT_SECRET", None);
    let before = house.rows().await;
    let ran = house.run(&["doctor"]).await;
    let text = ran.ends(0);
    for name in ["database", "keys", "rows", "slack", "clock"] {
        assert!(text.contains(&format!("ok      {name}: ")), "{text}");
    }
    let report = house.run_json(&["doctor"]).await.json();
    assert_eq!(report["grade"], "ok");
    assert!(kinds(&report, "checks", "name").is_empty());
    assert_eq!(house.rows().await, before);
}

#[tokio::test]
async fn doctor_finds_each_fault_of_a_tenant_and_names_the_command_that_mends_it() {
    let house = House::new().await;
    house.install(ADA).await;
    house.install(BOB).await;
    house
        .change_chain(ALPHA, |chain| {
            chain.lease = Some(Lease {
                owner: 7,
                until: ago(3600),
            });
            chain.issued_at = ago(6 * 3600);
        })
        .await;
    house
        .change_chain(BRAVO, |chain| chain.is_dead = true)
        .await;
    let hold = Hold {
        is_on: true,
        reason: "ticket".to_owned(),
        at: ago(60),
    };
    let held = house.app.store.hold(&key(BRAVO), &hold).await;
    assert!(held.expect("stored"));
    house.damage(BRAVO, "install").await;
    let ran = house.run_json(&["doctor"]).await;
    ran.ends(1);
    let report = ran.json();
    assert_eq!(report["grade"], "failure");
    assert_eq!(
        kinds(&report, "checks", "name"),
        ["damaged_row", "dead_chain", "hold", "orphaned_lease"]
    );
    let ran = house.run(&["doctor"]).await;
    for command in [
        "slack-installs purge T0BRAVO0002 --reason",
        "slack-installs refresh T0BRAVO0002 --revive",
        "slack-installs thaw T0BRAVO0002 --reason",
        "slack-installs refresh T0ALPHA0001",
    ] {
        assert!(ran.out.contains(command), "{command}: {ran:?}");
    }
    house.run(&["refresh", ALPHA, "--yes"]).await.ends(0);
    let report = house.run_json(&["doctor"]).await.json();
    let left = kinds(&report, "checks", "name");
    assert!(!left.contains(&"orphaned_lease".to_owned()), "{left:?}");
}

#[tokio::test]
async fn doctor_finds_a_data_key_that_no_master_key_opens_and_the_rows_under_it() {
    let old = MasterKey::generate();
    let copy = MasterKey::parse(&old.to_base64()).expect("a key");
    let house = House::with_keys(|_| Arc::new(LocalKeyProvider::new(copy))).await;
    house.install(ADA).await;
    // The next data key is wrapped by the master key that the program has.
    let new = MasterKey::parse(&house.master_key).expect("a key");
    let keys = LocalKeyProvider::new(new).with_retired(old);
    let backend = Arc::clone(house.app.store.backend());
    let store = slack_installs::EncryptedStore::open(backend, keys, house.app.fake.client_id());
    let store = store.await.expect("both keys are known");
    store.rotate_data_key().await.expect("a new key");
    let ran = house.run_json(&["doctor"]).await;
    ran.ends(1);
    let report = ran.json();
    assert_eq!(
        kinds(&report, "checks", "name"),
        ["keys", "row_without_key"]
    );
    house.run(&["verify"]).await.ends(6);
    let ran = house.run_json(&["explain", ALPHA]).await;
    assert_eq!(
        kinds(&ran.json(), "findings", "kind"),
        ["row_without_key", "row_without_key"]
    );
}

#[tokio::test]
async fn doctor_finds_a_clock_that_differs_from_slacks() {
    let house = House::new().await;
    house.app.fake.advance(Duration::from_secs(3600));
    let ran = house.run_json(&["doctor"]).await;
    ran.ends(1);
    assert_eq!(kinds(&ran.json(), "checks", "name"), ["clock"]);
    let text = ran.out;
    assert!(text.contains("behind Slack's"), "{text}");
}

#[tokio::test]
async fn doctor_grades_a_part_that_cannot_be_opened_and_still_checks_the_others() {
    let mut house = House::new().await;
    let url = house.values["SLACK_INSTALLS_URL"].clone();
    house.set("SLACK_INSTALLS_URL", Some("sqlite:no-such-file.sqlite3"));
    let ran = house.run_json(&["doctor"]).await;
    ran.ends(1);
    assert_eq!(kinds(&ran.json(), "checks", "name"), ["database"]);
    assert!(
        !house.path("no-such-file.sqlite3").exists(),
        "a report makes no file"
    );

    house.set("SLACK_INSTALLS_URL", Some(&url));
    let wrong = MasterKey::generate().to_base64().to_string();
    std::fs::write(house.path("key"), wrong).expect("the directory is ours");
    let ran = house.run_json(&["doctor"]).await;
    ran.ends(1);
    assert_eq!(kinds(&ran.json(), "checks", "name"), ["keys"]);

    std::fs::remove_file(house.path("key")).expect("the file is ours");
    house.set("SLACK_URL", Some("http://127.0.0.1:9"));
    let ran = house.run_json(&["doctor"]).await;
    ran.ends(1);
    assert_eq!(
        kinds(&ran.json(), "checks", "name"),
        ["clock", "keys", "slack"]
    );
}
