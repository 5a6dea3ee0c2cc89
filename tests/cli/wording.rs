//! Counts in texts.

use slack_installs::store::LifecycleStore as _;
use slack_installs::{Hold, InstallationStore as _};

use super::{House, ago};
use crate::support::app::{ADA, ALPHA, key};
use crate::support::installs::{With as _, in_workspace};

/// Checks that no word in the plural follows a one.
#[track_caller]
fn is_singular(text: &str) {
    // A table has a number at the end of a line.
    for line in text.lines() {
        check(line);
    }
}

#[track_caller]
fn check(text: &str) {
    let words: Vec<_> = text.split_whitespace().collect();
    for pair in words.windows(2) {
        let number = pair[0].trim_start_matches(['(', '`']);
        let noun = pair[1].trim_end_matches([',', '.', ';', ':', ')']);
        let is_verb = ["is", "has", "was"].contains(&noun);
        let is_plural = noun.len() > 1 && noun.ends_with('s') && !is_verb;
        assert!(number != "1" || !is_plural, "{pair:?} in {text}");
    }
}

#[tokio::test]
async fn a_count_of_one_is_in_the_singular_in_every_text() {
    let (house, _) = super::audits::house().await;
    // The tenants have one row, one webhook, one failed refresh, and one delivery that failed.
    let plain = in_workspace("T0PLAIN0001").with_bot("xoxb-1");
    house.app.store.store(&plain).await.expect("stored");
    house
        .change_chain(ALPHA, |chain| {
            chain.failures = 1;
            chain.is_dead = true;
            chain.last_error = Some("invalid_refresh_token".into());
        })
        .await;
    let hold = Hold {
        is_on: true,
        reason: "r".to_owned(),
        at: ago(60),
    };
    let held = house.app.store.hold(&key("T0PLAIN0001"), &hold).await;
    assert!(held.expect("stored"));
    let purge = [
        "purge",
        "T0PLAIN0001",
        "--reason",
        "r",
        "--no-note",
        "--yes",
    ];
    house.run(&purge).await.ends(0);
    for arguments in [
        &["doctor"][..],
        &["explain", ALPHA],
        &["explain", "T0PLAIN0001"],
        &["show", ALPHA],
        &["list"],
        &["stats"],
        &["verify"],
        &["keys", "list"],
        &["keys", "reseal", "--dry-run"],
        &["keys", "reseal", "--yes"],
        &["keys", "rewrap", "--dry-run"],
        &["keys", "rewrap", "--yes"],
        &["audit", "tail"],
        &["audit", "verify"],
        &["audit", "baseline", "--yes"],
        &["purge", "T0PLAIN0001", "--reason", "r", "--dry-run"],
        &["revoke", "T0PLAIN0001", "--reason", "r", "--dry-run"],
        &["reconcile", "--most-purges", "1", "--dry-run"],
        &["reconcile", "--most-purges", "1"],
        &["copy", "env:SLACK_INSTALLS_URL", "sqlite:copy"],
    ] {
        let ran = house.run(arguments).await;
        assert!([0, 1, 4, 8].contains(&ran.code), "{arguments:?} {ran:?}");
        is_singular(&ran.out);
        is_singular(&ran.err);
        if arguments == ["audit", "verify"] {
            // The rows that were stored past the log's process.
            let text = "`slack-installs audit baseline` accepts them";
            assert_eq!(
                ran.out.contains(text),
                ran.out.contains(": Unlogged"),
                "{ran:?}"
            );
            assert!(ran.out.contains(text), "{ran:?}");
        }
    }
    let ran = house
        .run(&["purge", "T0PLAIN0001", "--reason", "r", "--dry-run"])
        .await;
    assert!(ran.out.contains(": 1 row of T0PLAIN0001 "), "{ran:?}");
    house
        .change_chain(ALPHA, |chain| chain.is_dead = false)
        .await;
    let ran = house.run(&["doctor"]).await;
    assert!(
        ran.out
            .contains("the last refresh of the bot failed (invalid_refresh_token)"),
        "{ran:?}"
    );
    is_singular(&ran.out);
}

#[tokio::test]
async fn a_store_of_one_row_and_of_none_is_described_so() {
    let house = House::new().await;
    let ran = house.run(&["doctor"]).await;
    assert!(
        ran.ends(0).contains("ok      rows: no tenant is stored\n"),
        "{ran:?}"
    );
    house.install(ADA).await;
    let freeze = ["freeze", ALPHA, "--reason", "r", "--yes"];
    house.run(&freeze).await.ends(0);
    let purge = ["purge", ALPHA, "--reason", "r", "--no-note", "--yes"];
    house.run(&purge).await.ends(0);
    let ran = house.run(&["doctor"]).await;
    let text = "ok      rows: the only row of a tenant opens\n";
    assert!(ran.ends(0).contains(text), "{ran:?}");
    is_singular(&house.run(&["verify"]).await.out);
    is_singular(&house.run(&["stats"]).await.out);
}
