//! Commands of several steps that fail in the middle: the error says what is done and what is left.

use std::time::Duration;

use slack_installs::store::LifecycleStore as _;
use slack_installs::testing::Fault;

use super::schemas::sql;
use super::signals::signal;
use super::{House, kinds};
use crate::support::app::{ADA, ALPHA, BRAVO, key};

const BOB: &str = "U0BRAVO0001";
const REVOKE: [&str; 5] = ["revoke", ALPHA, "--reason", "ticket", "--yes"];

#[tokio::test]
async fn a_revoke_of_a_damaged_tenant_says_that_it_left_a_hold_and_how_to_go_on() {
    let house = House::new().await;
    house.install(ADA).await;
    house.damage(ALPHA, "install").await;
    let calls = house.app.fake.call_log().len();
    let ran = house.run(&REVOKE).await;
    ran.ends(8);
    for part in [
        "its data is kept",
        "the tenant is on hold now",
        "`slack-installs thaw T0ALPHA0001 --reason …` ends the hold",
        "`slack-installs purge T0ALPHA0001 --reason …` deletes the data",
        "its tokens may be valid at Slack",
    ] {
        assert!(ran.err.contains(part), "{part}: {ran:?}");
    }
    assert_eq!(house.app.fake.call_log().len(), calls);
    // The second attempt finds the hold of the first one.
    let again = house.run(&REVOKE).await;
    again.ends(8);
    assert!(again.err.contains("nothing was changed"), "{again:?}");
    assert!(!again.err.contains("on hold now"), "{again:?}");
    // What the text names mends it.
    let purge = ["purge", ALPHA, "--reason", "r", "--no-note", "--yes"];
    house.run(&purge).await.ends(0);
    let thaw = ["thaw", ALPHA, "--reason", "r", "--yes"];
    house.run(&thaw).await.ends(0);
    let rows = house.rows().await;
    assert!(!rows.keys().any(|key| key.contains(ALPHA)), "{rows:?}");
}

#[tokio::test]
async fn a_revoke_that_slack_does_not_answer_says_that_the_tenant_is_on_hold() {
    let house = House::new().await;
    house.install(ADA).await;
    house
        .app
        .fake
        .inject("apps.uninstall", Fault::unavailable().times(10));
    let ran = house.run(&REVOKE).await;
    ran.ends(7);
    for part in [
        "its data is kept",
        "on hold now",
        "slack-installs thaw",
        "run the same command again to revoke the tokens",
    ] {
        assert!(ran.err.contains(part), "{part}: {ran:?}");
    }
    house.app.fake.clear_faults();
    house.run(&REVOKE).await.ends(0);
    // The hold of the first attempt stays, and `doctor` names the command that ends it.
    let held = house.app.store.held(&key(ALPHA)).await.expect("responds");
    assert!(held.is_some_and(|hold| hold.is_on));
    assert!(
        house
            .run(&["doctor"])
            .await
            .out
            .contains("thaw T0ALPHA0001")
    );
}

/// Makes changes of the rows of these tenants fail.
async fn refuse(house: &House, change: &str, tenants: &str) {
    let row = if change == "INSERT" { "NEW" } else { "OLD" };
    let trigger = format!(
        "CREATE TRIGGER refuse_{change} BEFORE {change} ON slack_rows \
         WHEN {row}.partition LIKE '%/{tenants}' BEGIN SELECT RAISE(ABORT, 'refused'); END"
    );
    sql(&house.path("db.sqlite3"), &trigger).await;
}

#[tokio::test]
async fn an_action_that_failed_and_changed_nothing_says_so() {
    let house = super::act::house().await;
    for change in ["INSERT", "UPDATE", "DELETE"] {
        refuse(&house, change, "T0%").await;
    }
    let before = house.rows().await;
    for action in super::act::ACTIONS {
        if ["refresh", "reconcile"].contains(&action[0]) {
            continue;
        }
        let ran = house.run(&[action, &["--yes"]].concat()).await;
        assert!([5, 8].contains(&ran.code), "{action:?} {ran:?}");
        assert!(
            ran.err.contains("; nothing was changed"),
            "{action:?} {ran:?}"
        );
        assert_eq!(house.rows().await, before, "{action:?}");
    }
}

#[tokio::test]
async fn a_revoke_that_slack_accepted_and_the_database_did_not_says_both() {
    let house = House::new().await;
    house.install(ADA).await;
    refuse(&house, "DELETE", ALPHA).await;
    let ran = house.run(&REVOKE).await;
    assert!([5, 8].contains(&ran.code), "{ran:?}");
    for part in [
        "its data is kept",
        "the tenant is on hold now",
        "Slack has removed the app or revoked its tokens",
        "`slack-installs purge T0ALPHA0001 --reason …` deletes the data",
    ] {
        assert!(ran.err.contains(part), "{part}: {ran:?}");
    }
    assert!(!house.app.fake.is_installed(ALPHA));
}

#[tokio::test]
async fn a_sweep_that_fails_in_the_middle_says_that_earlier_deletions_stay() {
    let house = House::new().await;
    house.install(ADA).await;
    house.install(BOB).await;
    house.app.fake.uninstall(ALPHA);
    house.app.fake.uninstall(BRAVO);
    refuse(&house, "DELETE", BRAVO).await;
    let sweep = [
        "reconcile",
        "--pause",
        "0",
        "--most-percent",
        "100",
        "--yes",
    ];
    let ran = house.run(&sweep).await;
    assert!([1, 5, 8].contains(&ran.code), "{ran:?}");
    assert!(
        ran.err
            .contains("tenants that were deleted or corrected before stay so: run the same"),
        "{ran:?}"
    );
    assert!(house.app.fetch(ALPHA, None).await.is_none());
    assert!(house.app.fetch(BRAVO, None).await.is_some());
    sql(&house.path("db.sqlite3"), "DROP TRIGGER refuse_DELETE").await;
    house.run(&sweep).await.ends(0);
    assert!(house.app.fetch(BRAVO, None).await.is_none());
}

#[tokio::test]
async fn a_revoke_that_is_interrupted_names_the_hold_and_the_command_that_ends_it() {
    let house = House::new().await;
    house.install(ADA).await;
    let slow = Fault::delay(Duration::from_secs(60));
    house.app.fake.inject("apps.uninstall", slow);
    let running = house.command(&REVOKE).spawn().expect("the program starts");
    house.waits_for("apps.uninstall", 0).await;
    signal(running.id().expect("it runs"), "-INT").await;
    let output = running.wait_with_output().await.expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    for part in [
        "interrupted; run the same command again to continue",
        "the tenant may be on hold already",
        "`slack-installs thaw T0ALPHA0001 --reason …` ends a hold",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let held = house.app.store.held(&key(ALPHA)).await.expect("responds");
    assert!(held.is_some_and(|hold| hold.is_on));
}

#[tokio::test]
async fn a_change_of_the_data_keys_that_fails_says_that_no_key_was_changed() {
    let house = House::new().await;
    house.install(ADA).await;
    house.run(&["keys", "add", "--yes"]).await.ends(0);
    let listed = house.run_json(&["keys", "list"]).await.json();
    let keys = listed["keys"].as_array().expect("keys");
    let new = keys.iter().find(|it| it["state"] == "distributed");
    let new = new.expect("a new key")["id"].as_str().expect("an id");
    for change in ["INSERT", "UPDATE", "DELETE"] {
        refuse(&house, change, "keyring").await;
    }
    for arguments in [
        &["keys", "add", "--yes"][..],
        &["keys", "promote", new, "--force", "--yes"],
    ] {
        let ran = house.run(arguments).await;
        assert!([5, 8].contains(&ran.code), "{ran:?}");
        assert!(ran.err.contains("; no data key was changed"), "{ran:?}");
    }
    let now = house.run_json(&["keys", "list"]).await.json();
    assert_eq!(now["keys"], listed["keys"]);
}

#[tokio::test]
async fn a_copy_that_leaves_rows_out_names_them_and_continues_later() {
    let house = House::new().await;
    house.install(ADA).await;
    house.install(BOB).await;
    let url = "sqlite:target.sqlite3";
    house.run(&["migrate", "--database", url]).await.ends(0);
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON slack_rows \
                  WHEN NEW.partition LIKE '%/T0BRAVO0002' BEGIN SELECT RAISE(ABORT, 'no'); END";
    sql(&house.path("target.sqlite3"), refuse).await;
    let copy = ["copy", "env:SLACK_INSTALLS_URL", url];
    let ran = house.run(&copy).await;
    assert!(ran.ends(8).contains("T0BRAVO0002 bot: "), "{ran:?}");
    assert!(!ran.out.contains("--no-finish"), "{ran:?}");
    assert!(
        ran.err
            .contains("mend or delete them, and run the same command again"),
        "{ran:?}"
    );
    sql(&house.path("target.sqlite3"), "DROP TRIGGER refuse").await;
    assert!(
        house
            .run(&copy)
            .await
            .ends(0)
            .contains("the copy is finished")
    );
}

#[tokio::test]
async fn a_leaked_token_without_a_new_pair_is_explained_as_withdrawn_and_not_as_expired() {
    let house = House::new().await;
    house.install(ADA).await;
    let limited = Fault::rate_limited(Duration::from_secs(30)).times(10);
    house.app.fake.inject("oauth.v2.access", limited);
    let ran = house.run(&["refresh", ALPHA, "--leaked", "--yes"]).await;
    ran.ends(7);
    for part in [
        "the old token is no longer handed out",
        "run the same command again after 20",
        "which also revokes the old token",
    ] {
        assert!(ran.err.contains(part), "{part}: {ran:?}");
    }

    let doctor = house.run(&["doctor"]).await;
    let text = doctor.ends(0);
    assert!(
        text.contains("warning withdrawn_token: T0ALPHA0001: the token of the bot "),
        "{text}"
    );
    assert!(text.contains("Slack has issued no new one yet"), "{text}");
    assert!(text.contains("remedy: `slack-installs refresh T0ALPHA0001` after 20"));
    assert!(
        text.contains("the last refresh of the bot failed"),
        "{text}"
    );

    let explain = house.run(&["explain", ALPHA]).await;
    let text = explain.ends(0);
    assert!(
        text.contains("+ token: the bot: ended early, because it leaked or Slack revoked it, and"),
        "{text}"
    );
    assert!(text.contains("  state          withdrawn"), "{text}");
    let report = house.run_json(&["explain", ALPHA]).await.json();
    assert!(report["chains"][0]["expires_at"].is_null(), "{report}");
    assert_eq!(report["chains"][0]["is_withdrawn"], true);
    assert_eq!(
        kinds(&report, "findings", "kind"),
        ["failing_refresh", "withdrawn_token"]
    );

    for arguments in [&["list"][..], &["list", "--expiring"]] {
        let list = house.run(arguments).await;
        let line = list.ends(0).lines().nth(1).expect("one tenant");
        let words: Vec<_> = line.split_whitespace().rev().take(2).collect();
        assert_eq!(words, ["withdrawn", "-"], "{line}");
    }
    let stats = house.run_json(&["stats"]).await.json();
    assert_eq!(
        (&stats["withdrawn"], &stats["expired"]),
        (&1.into(), &0.into())
    );
    // No report has a time before the installation.
    for arguments in [
        &["doctor"][..],
        &["explain", ALPHA],
        &["list"],
        &["show", ALPHA],
    ] {
        let ran = house.run(arguments).await;
        assert!(!ran.out.contains("expired"), "{arguments:?} {ran:?}");
    }
}

#[tokio::test]
async fn a_leaked_token_that_slack_refuses_to_replace_is_not_promised_again() {
    let house = House::new().await;
    house.install(ADA).await;
    house
        .change_chain(ALPHA, |chain| {
            chain.is_dead = true;
            chain.last_error = Some("invalid_refresh_token".into());
        })
        .await;
    let ran = house.run(&["refresh", ALPHA, "--leaked", "--yes"]).await;
    ran.ends(7);
    for (part, is_there) in [
        ("must be installed again", true),
        ("the old token is no longer handed out", true),
        ("run the same command again", false),
    ] {
        assert_eq!(ran.err.contains(part), is_there, "{part} {ran:?}");
    }
    // The reason of the refusal is kept.
    for arguments in [&["doctor"][..], &["explain", ALPHA]] {
        let ran = house.run(arguments).await;
        let text = "refused every refresh token of the bot (invalid_refresh_token)";
        assert!(ran.out.contains(text), "{ran:?}");
    }
}

#[tokio::test]
async fn a_token_that_slack_revoked_early_is_explained_so_for_a_user_too() {
    let house = House::new().await;
    house.install(ADA).await;
    house
        .change_chain(ALPHA, |chain| {
            chain.expires_at = Some(chain.issued_at - Duration::from_secs(86_400));
            chain.last_error = Some("token_revoked".into());
        })
        .await;
    let text = house.run(&["explain", ALPHA]).await;
    let text = text.ends(0);
    assert!(
        text.contains("+ token: the bot: was revoked early by Slack, and the next"),
        "{text}"
    );
    house
        .change_chain(ALPHA, |chain| {
            chain.last_error = Some("rotated_on_demand".into());
        })
        .await;
    let text = house.run(&["doctor"]).await;
    assert!(
        text.ends(0)
            .contains("the token of the bot leaked, so it is no longer handed out"),
        "{text:?}"
    );
    // A dead chain is explained as one.
    house
        .change_chain(ALPHA, |chain| chain.is_dead = true)
        .await;
    let ran = house.run_json(&["explain", ALPHA]).await;
    assert_eq!(
        kinds(&ran.json(), "findings", "kind"),
        ["dead_chain"],
        "{ran:?}"
    );
}

#[tokio::test]
async fn a_revive_that_fails_says_that_the_dead_mark_is_cleared() {
    let house = House::new().await;
    house.install(ADA).await;
    house.install(BOB).await;
    house.age(ALPHA).await;
    house
        .change_chain(ALPHA, |chain| chain.is_dead = true)
        .await;
    let limited = Fault::rate_limited(Duration::from_secs(30)).times(10);
    house.app.fake.inject("oauth.v2.access", limited);
    let ran = house.run(&["refresh", ALPHA, "--revive", "--yes"]).await;
    ran.ends(7);
    assert!(ran.err.contains("the dead mark is cleared"), "{ran:?}");
    // It had none.
    house.age(BRAVO).await;
    let ran = house.run(&["refresh", BRAVO, "--revive", "--yes"]).await;
    ran.ends(7);
    assert!(!ran.err.contains("dead mark"), "{ran:?}");
}

#[tokio::test]
async fn a_hold_that_cannot_be_read_has_no_time_and_names_the_command_that_replaces_it() {
    let house = House::new().await;
    house.install(ADA).await;
    house.install(BOB).await;
    let freeze = ["freeze", BRAVO, "--reason", "r", "--yes"];
    house.run(&freeze).await.ends(0);
    house.damage(BRAVO, "hold").await;
    for arguments in [&["explain", BRAVO][..], &["doctor"]] {
        let ran = house.run(arguments).await;
        assert!(!ran.out.contains("1970"), "{ran:?}");
        assert!(
            ran.out
                .contains("it counts as a hold: `slack-installs thaw T0BRAVO0002"),
            "{ran:?}"
        );
    }
    let thaw = ["thaw", BRAVO, "--reason", "r", "--yes"];
    house.run(&thaw).await.ends(0);
    let report = house.run_json(&["explain", BRAVO]).await.json();
    assert!(kinds(&report, "findings", "kind").is_empty(), "{report}");
    assert_eq!(report["hold"]["is_on"], false);
}

#[tokio::test]
async fn an_init_that_cannot_write_its_second_file_leaves_none() {
    let house = House::new().await;
    std::fs::create_dir(house.path("new")).expect("the directory is ours");
    // A link to nowhere does not exist, and no file can be created in its place.
    #[cfg(unix)]
    std::os::unix::fs::symlink("/does/not/exist", house.path("new/slack-installs.conf"))
        .expect("the directory is ours");
    let ran = house.run(&["init", "--directory", "new"]).await;
    ran.ends(1);
    assert!(ran.err.contains("nothing was changed"), "{ran:?}");
    assert!(!house.path("new/master-key").exists());
}
