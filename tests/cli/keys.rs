//! The commands that rotate data keys.

use std::time::Duration;

use slack_installs::{AppStore, Clock, KeyId, KeyState};

use super::House;
use crate::support::app::{ADA, ALPHA};

/// The app's store, in a process that did its work this many minutes ago.
pub(crate) fn minutes_ago(house: &House, minutes: u64) -> AppStore {
    let then = move || Clock::default().now() - Duration::from_secs(minutes * 60);
    house.app.store.clone().with_clock(Clock::from_fn(then))
}

async fn states(house: &House) -> Vec<(KeyId, KeyState)> {
    let listed = house.app.store.keys().list().await;
    let keys = listed.expect("the database is up").keys.into_iter();
    keys.map(|key| (key.id, key.state)).collect()
}

async fn house() -> House {
    let house = House::new().await;
    house.install(ADA).await;
    house
}

#[tokio::test]
async fn a_data_key_is_rotated_by_one_command_for_each_phase() {
    let house = house().await;
    let old = states(&house).await[0].0;
    let new = minutes_ago(&house, 46).keys().add().await.expect("adds");
    let promoted = minutes_ago(&house, 31).keys().promote(new, false).await;
    assert!(promoted.expect("promotes"));
    let (old, new) = (old.to_string(), new.to_string());

    // The rows are still under the old key.
    for arguments in [
        &["keys", "destroy", &old, "--yes"][..],
        &["keys", "destroy", &old, "--dry-run"],
    ] {
        let ran = house.run(arguments).await;
        ran.ends(4);
        assert!(
            ran.err.contains("rows are sealed under the data key"),
            "{ran:?}"
        );
    }
    let ran = house.run_json(&["keys", "reseal", "--dry-run"]).await;
    ran.ends(0);
    let counted = ran.json()["details"]["rows"][&old]
        .as_u64()
        .expect("a number");
    assert!(counted > 0, "{ran:?}");
    let ran = house.run_json(&["keys", "reseal", "--yes"]).await;
    ran.ends(0);
    assert_eq!(ran.json()["details"]["resealed"], counted, "{ran:?}");
    let ran = house.run(&["keys", "reseal", "--dry-run"]).await;
    assert!(
        !ran.ends(0).contains(&old) && ran.out.contains(&new),
        "{ran:?}"
    );

    let ran = house
        .run_json(&["keys", "destroy", &old, "--dry-run"])
        .await;
    ran.ends(0);
    assert_eq!(states(&house).await.len(), 2);
    let ran = house.run_json(&["keys", "destroy", &old, "--yes"]).await;
    ran.ends(0);
    assert_eq!(ran.json()["outcome"], "destroyed");
    assert_eq!(states(&house).await.len(), 1);
    house.run(&["keys", "destroy", &old, "--yes"]).await.ends(3);
    house.run(&["verify"]).await.ends(0);
}

#[tokio::test]
async fn a_key_is_added_promoted_after_a_while_or_by_force_and_listed() {
    let house = house().await;
    let ran = house.run_json(&["keys", "add", "--yes"]).await;
    ran.ends(0);
    let new = ran.json()["key"].as_str().expect("an id").to_owned();
    let ran = house.run(&["keys", "promote", &new, "--yes"]).await;
    ran.ends(4);
    assert!(ran.err.contains("try again in"), "{ran:?}");
    house
        .run(&["keys", "promote", &new, "--dry-run"])
        .await
        .ends(4);
    let force = ["keys", "promote", &new, "--force", "--yes"];
    house.run(&force).await.ends(0);
    let ran = house.run_json(&force).await;
    ran.ends(0);
    assert_eq!(ran.json()["outcome"], "nothing_to_do");
    let ran = house.run_json(&["keys", "list"]).await;
    ran.ends(0);
    let json = ran.json();
    let listed = json["keys"].as_array().expect("a list");
    let listed: Vec<_> = listed.iter().map(|key| key["state"].clone()).collect();
    assert_eq!(listed, ["retired", "primary"]);
    assert_eq!(json["keys"][1]["id"], new);
    let ran = house.run(&["keys", "list"]).await;
    assert!(
        ran.ends(0).contains(&format!("{new} epoch 2 primary")),
        "{ran:?}"
    );

    // The primary, a key that was retired a minute ago, and one that does not exist.
    house.run(&["keys", "destroy", &new, "--yes"]).await.ends(4);
    let old = json["keys"][0]["id"].as_str().expect("an id");
    house.run(&["keys", "destroy", old, "--yes"]).await.ends(4);
    house
        .run(&["keys", "promote", old, "--force", "--yes"])
        .await
        .ends(4);
    let none = "0".repeat(32);
    house
        .run(&["keys", "destroy", &none, "--yes"])
        .await
        .ends(3);
    house
        .run(&["keys", "promote", &none, "--yes"])
        .await
        .ends(4);
    for wrong in [
        "",
        "1",
        &none.replace('0', "A"),
        &format!("+{}", &none[1..]),
    ] {
        house
            .run(&["keys", "destroy", wrong, "--yes"])
            .await
            .ends(2);
    }
}

#[tokio::test]
async fn keys_are_wrapped_again_under_a_new_master_key_and_a_missing_one_ends_with_its_own_code() {
    let house = house().await;
    let file = house.path("key");
    let old = house.master_key.clone();
    let new = slack_installs::MasterKey::generate().to_base64();
    let write = |text: &str| std::fs::write(&file, text).expect("the file is ours");
    write(&format!("{}\n{old}\n", *new));
    let ran = house.run_json(&["keys", "rewrap", "--yes"]).await;
    ran.ends(0);
    assert_eq!(
        ran.json()["details"]["rewrapped"].as_array().map(Vec::len),
        Some(1)
    );
    let ran = house.run_json(&["keys", "rewrap", "--yes"]).await;
    assert_eq!(
        ran.json()["details"]["current"].as_array().map(Vec::len),
        Some(1)
    );
    write(&new);
    house.run(&["verify"]).await.ends(0);
    write(&old);
    house.run(&["keys", "list"]).await.ends(6);
    house.run(&["keys", "add", "--yes"]).await.ends(6);
}

#[tokio::test]
async fn a_data_key_whose_master_key_is_missing_is_named_and_the_others_are_wrapped_again() {
    let house = house().await;
    let master = || slack_installs::MasterKey::generate().to_base64();
    let (second, third) = (master(), master());
    let write = |new: &str, old: &str| {
        std::fs::write(house.path("key"), format!("{new}\n{old}\n")).expect("the file is ours");
    };
    let first = states(&house).await[0].0.to_string();
    write(&second, &house.master_key);
    let added = house.run_json(&["keys", "add", "--yes"]).await.json();
    let new = added["key"].as_str().expect("an id");
    let promote = ["keys", "promote", new, "--force", "--yes"];
    house.run(&promote).await.ends(0);
    write(&third, &second);
    let before = house.rows().await;
    let rewrap = ["keys", "rewrap"];
    house
        .run(&[&rewrap[..], &["--dry-run"]].concat())
        .await
        .ends(0);
    assert_eq!(house.rows().await, before);
    let ran = house.run_json(&[&rewrap[..], &["--yes"]].concat()).await;
    ran.ends(6);
    let json = ran.json();
    assert_eq!(json["outcome"], "failed", "{json}");
    assert_eq!(json["details"]["rewrapped"][0], new, "{json}");
    assert!(json["details"]["failed"][&first].is_string(), "{json}");
    assert!(ran.err.contains("keep the old master key"), "{ran:?}");
}

#[tokio::test]
async fn a_row_that_does_not_open_is_named_and_stays() {
    let house = house().await;
    house.damage(ALPHA, "install").await;
    let added = minutes_ago(&house, 46).keys().add().await.expect("adds");
    let promoted = minutes_ago(&house, 31).keys().promote(added, true).await;
    assert!(promoted.expect("promotes"));
    let ran = house.run(&["keys", "reseal", "--yes"]).await;
    ran.ends(8);
    assert!(ran.err.contains(ALPHA), "{ran:?}");
}

#[tokio::test]
async fn a_database_without_a_data_key_gets_none() {
    let mut house = House::new().await;
    house.set("SLACK_INSTALLS_URL", Some("sqlite:new.sqlite3"));
    house.run(&["migrate"]).await.ends(0);
    for action in ["add", "reseal", "rewrap"] {
        // Nobody is asked either.
        for decision in [&["--yes"][..], &["--dry-run"], &[]] {
            let ran = house.run(&[&["keys", action], decision].concat()).await;
            ran.ends(4);
            assert!(ran.err.contains("has no data key"), "{ran:?}");
        }
    }
}

#[tokio::test]
async fn the_help_says_that_promote_also_retires() {
    let house = House::new().await;
    let ran = house.run(&["keys", "--help"]).await;
    assert!(ran.ends(0).contains("retires"), "{ran:?}");
}
