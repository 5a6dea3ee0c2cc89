//! The commands that change tenants.

use std::time::Duration;

use slack_installs::store::{LifecycleStore as _, Mark};
use slack_installs::testing::Fault;

use super::House;
use crate::support::app::{ADA, ALPHA, BRAVO, key};

const BOB: &str = "U0BRAVO0001";

/// Every command that changes a tenant, without `--yes` and `--dry-run`.
pub(crate) const ACTIONS: [&[&str]; 7] = [
    &["refresh", ALPHA],
    &["freeze", ALPHA, "--reason", "ticket 1"],
    &["thaw", BRAVO, "--reason", "ticket 1"],
    &["revoke", ALPHA, "--reason", "ticket 1"],
    &["purge", ALPHA, "--reason", "ticket 1"],
    &["reconcile"],
    &["webhook", "remove", ALPHA, "--channel", "C0GENERAL01"],
];

pub(crate) async fn house() -> House {
    let house = House::new().await;
    house.install(ADA).await;
    house.install(BOB).await;
    house
        .run(&["freeze", BRAVO, "--reason", "before", "--yes"])
        .await
        .ends(0);
    house
}

#[tokio::test]
async fn a_dry_run_of_every_action_changes_no_row_and_calls_slack_for_nothing() {
    let house = house().await;
    let before = house.rows().await;
    for action in ACTIONS {
        let calls = house.app.fake.call_log().len();
        // Also if nobody is to be asked.
        let dry = [action, &["--dry-run", "--yes"]].concat();
        let ran = house.run_json(&dry).await;
        ran.ends(0);
        assert_eq!(ran.json()["is_dry_run"], true, "{action:?}");
        assert_eq!(house.rows().await, before, "{action:?}");
        let calls = house.app.fake.call_log().len() - calls;
        assert!(calls == 0 || action[0] == "reconcile", "{action:?}");
    }
}

#[tokio::test]
async fn without_a_terminal_and_without_yes_every_action_is_refused() {
    let house = house().await;
    let before = house.rows().await;
    for action in ACTIONS {
        let ran = house.run(action).await;
        ran.ends(4);
        assert!(ran.err.contains("--yes"), "{ran:?}");
        let tenant = action.iter().find(|it| it.starts_with("T0"));
        assert!(tenant.is_none_or(|it| ran.err.contains(it)), "{ran:?}");
        assert_eq!(house.rows().await, before, "{action:?}");
    }
}

#[tokio::test]
async fn every_action_needs_its_reason_and_a_tenant_that_is_stored() {
    let house = house().await;
    for action in ["freeze", "thaw", "revoke", "purge"] {
        house.run(&[action, ALPHA, "--yes"]).await.ends(2);
        let arguments = [action, "T0NOBODY", "--reason", "r", "--yes"];
        house.run(&arguments).await.ends(3);
    }
    house.run(&["refresh", "T0NOBODY", "--yes"]).await.ends(3);
    let remove = ["webhook", "remove", ALPHA, "--channel", "C0OTHER", "--yes"];
    house.run(&remove).await.ends(3);
}

#[tokio::test]
async fn freeze_and_thaw_store_their_reasons_and_need_no_client_secret() {
    let mut house = House::new().await;
    house.install(ADA).await;
    house.set("SLACK_CLIENT_SECRET", None);
    let held = async || house.app.store.held(&key(ALPHA)).await;
    let freeze = ["freeze", ALPHA, "--reason", "ticket 1", "--yes"];
    house.run(&freeze).await.ends(0);
    let hold = held().await.expect("responds").expect("a hold");
    assert_eq!((hold.is_on, hold.reason.as_str()), (true, "ticket 1"));
    let ran = house
        .run_json(&["freeze", ALPHA, "--reason", "2", "--yes"])
        .await;
    ran.ends(0);
    assert_eq!(ran.json()["outcome"], "nothing_to_do");
    let thaw = ["thaw", ALPHA, "--reason", "settled", "--yes"];
    house.run(&thaw).await.ends(0);
    let hold = held().await.expect("responds").expect("a record");
    assert_eq!((hold.is_on, hold.reason.as_str()), (false, "settled"));
}

#[tokio::test]
async fn refresh_replaces_the_pair_and_names_the_reason_if_slack_refuses() {
    let house = House::new().await;
    house.install(ADA).await;
    let mark = async || {
        let bot = house.app.stored(ALPHA, None).await.installation.bot;
        Mark::of_access_token(&bot.expect("a bot").grant.access_token)
    };
    let before = mark().await;
    // Slack keeps two tokens alive, so a new pair is not replaced at once.
    house.run(&["refresh", ALPHA, "--yes"]).await.ends(4);
    house.age(ALPHA).await;
    let ran = house.run_json(&["refresh", ALPHA, "--yes"]).await;
    ran.ends(0);
    assert_eq!(ran.json()["outcome"], "refreshed");
    let after = mark().await;
    assert_ne!(before, after);
    // The user has no token of their own.
    let user = ["refresh", ALPHA, "--user", ADA, "--yes"];
    house.run(&user).await.ends(3);
    house.app.fake.uninstall(ALPHA);
    house.age(ALPHA).await;
    let ran = house.run(&["refresh", ALPHA, "--yes"]).await;
    ran.ends(7);
    assert_eq!(mark().await, after);
    // Slack refused every refresh token, so the chain is dead.
    let ran = house.run(&["refresh", ALPHA, "--yes"]).await;
    ran.ends(7);
    assert!(ran.err.contains("must be installed again"), "{ran:?}");
}

#[tokio::test]
async fn a_leaked_token_is_replaced_and_revoked() {
    let house = House::new().await;
    house.install(ADA).await;
    let token = house.app.fake.bot_token(ALPHA).expect("installed");
    let ran = house.run(&["refresh", ALPHA, "--leaked", "--yes"]).await;
    ran.ends(0);
    assert!(!house.app.fake.is_live(token.expose()));
    let fault = Fault::unavailable().times(10);
    house.app.fake.inject("auth.revoke", fault);
    house.age(ALPHA).await;
    let ran = house.run(&["refresh", ALPHA, "--leaked", "--yes"]).await;
    ran.ends(7);
    let text = "the pair was replaced, but the old tokens could not be revoked";
    assert!(ran.err.contains(text), "{ran:?}");
}

#[tokio::test]
async fn a_tenant_on_hold_is_not_refreshed() {
    let house = House::new().await;
    house.install(ADA).await;
    let freeze = ["freeze", ALPHA, "--reason", "r", "--yes"];
    house.run(&freeze).await.ends(0);
    house.run(&["refresh", ALPHA, "--yes"]).await.ends(4);
}

#[tokio::test]
async fn revoke_uninstalls_the_app_and_leaves_a_note_for_the_apps_hooks() {
    let house = House::new().await;
    house.install(ADA).await;
    let revoke = ["revoke", ALPHA, "--reason", "ticket 2", "--yes"];
    let ran = house.run_json(&revoke).await;
    ran.ends(0);
    assert_eq!(ran.json()["outcome"], "uninstalled");
    assert!(!house.app.fake.is_installed(ALPHA));
    assert!(house.app.fetch(ALPHA, None).await.is_none());
    let departure = house.app.store.departure(&key(ALPHA)).await;
    let departure = departure.expect("responds").expect("a note");
    assert_eq!(departure.departure.reason, "ticket 2");
    // The note is due at once, and the app's own process takes it.
    let due = house.app.store.due_departures(super::ago(0), 10).await;
    assert_eq!(due.expect("responds").len(), 1);
    // Without a note, nobody is told.
    house.install(BOB).await;
    let revoke = ["revoke", BRAVO, "--reason", "r", "--no-note", "--yes"];
    house.run(&revoke).await.ends(0);
    let departure = house.app.store.departure(&key(BRAVO)).await;
    assert!(departure.expect("responds").is_none());
}

#[tokio::test]
async fn purge_deletes_a_tenant_whose_rows_do_not_open_without_a_call_to_slack() {
    let mut house = House::new().await;
    house.install(ADA).await;
    house.damage(ALPHA, "install").await;
    house.set("SLACK_CLIENT_SECRET", None);
    let calls = house.app.fake.call_log().len();
    let purge = ["purge", ALPHA, "--reason", "r", "--no-note", "--yes"];
    house.run(&purge).await.ends(0);
    assert_eq!(house.app.fake.call_log().len(), calls);
    assert!(house.app.fake.is_installed(ALPHA));
    let rows = house.rows().await;
    assert!(!rows.keys().any(|key| key.contains(ALPHA)), "{rows:?}");
}

#[tokio::test]
async fn a_command_that_calls_slack_names_the_secret_that_is_missing() {
    let mut house = House::new().await;
    house.install(ADA).await;
    house.set("SLACK_CLIENT_SECRET", None);
    let ran = house
        .run(&["revoke", ALPHA, "--reason", "r", "--yes"])
        .await;
    ran.ends(2);
    assert!(
        ran.err.contains("SLACK_CLIENT_SECRET is not set"),
        "{ran:?}"
    );
    assert!(house.app.fetch(ALPHA, None).await.is_some());
}

#[tokio::test]
async fn reconcile_deletes_what_slack_confirms_as_dead_and_stops_if_too_much_is() {
    let house = House::new().await;
    house.install(ADA).await;
    house.install(BOB).await;
    house.app.fake.uninstall(ALPHA);
    for is_dry in [true, false] {
        let flag = if is_dry { "--dry-run" } else { "--yes" };
        let ran = house.run_json(&["reconcile", "--pause", "0", flag]).await;
        ran.ends(0);
        let report = ran.json();
        assert_eq!(report["examined"], 2);
        assert_eq!(report["purged"], u64::from(!is_dry), "{report}");
        assert_eq!(report["findings"][0]["tenant"], ALPHA);
    }
    assert!(house.app.fetch(ALPHA, None).await.is_none());
    house.app.fake.uninstall(BRAVO);
    let none = ["reconcile", "--pause", "0", "--most-purges", "0", "--yes"];
    house.run(&none).await.ends(4);
    assert!(house.app.fetch(BRAVO, None).await.is_some());
    // Two tenants of two.
    house.install(ADA).await;
    house.app.fake.uninstall(ALPHA);
    let sweep = ["reconcile", "--pause", "0"];
    let dry = house.run(&[&sweep[..], &["--dry-run"]].concat()).await;
    let text = "more tenants look dead than one sweep may delete (--most-purges, --most-percent)";
    assert!(dry.ends(0).contains(text), "{dry:?}");
    house.run(&[&sweep[..], &["--yes"]].concat()).await.ends(4);
    let all = [&sweep[..], &["--most-percent", "100", "--no-note", "--yes"]].concat();
    assert_eq!(house.run_json(&all).await.json()["purged"], 2);
    let departure = house.app.store.departure(&key(BRAVO)).await;
    assert!(departure.expect("responds").is_none());
}

#[tokio::test]
async fn a_webhook_is_removed_and_the_tokens_stay() {
    let house = House::new().await;
    house.install(ADA).await;
    let remove = [
        "webhook",
        "remove",
        ALPHA,
        "--channel",
        "C0GENERAL01",
        "--yes",
    ];
    house.run(&remove).await.ends(0);
    let stored = house.app.stored(ALPHA, None).await;
    assert!(stored.incoming_webhooks.is_empty() && stored.bot.is_some());
    house.run(&remove).await.ends(3);
}

#[tokio::test]
async fn an_empty_reason_is_a_wrong_argument() {
    let house = house().await;
    let before = house.rows().await;
    for action in ["freeze", "thaw", "revoke", "purge"] {
        let ran = house.run(&[action, BRAVO, "--reason", "", "--yes"]).await;
        ran.ends(2);
        assert!(ran.err.contains("--reason"), "{ran:?}");
    }
    assert_eq!(house.rows().await, before);
}

#[tokio::test]
async fn a_refusal_names_what_the_operator_can_do() {
    let house = house().await;
    let ran = house.run(&["refresh", ALPHA, "--yes"]).await;
    ran.ends(4);
    for part in ["is not replaced before 20", "if it leaked, add --leaked"] {
        assert!(ran.err.contains(part), "{ran:?}");
    }
    let ran = house.run(&["refresh", BRAVO, "--yes"]).await;
    ran.ends(4);
    assert!(
        ran.err
            .contains("`slack-installs thaw T0BRAVO0002 --reason …` ends the hold"),
        "{ran:?}"
    );
    let remove = ["webhook", "remove", ALPHA, "--channel", "C0OTHER", "--yes"];
    let ran = house.run(&remove).await;
    ran.ends(3);
    assert!(
        ran.err.contains("it has those of C0GENERAL01 (#general)"),
        "{ran:?}"
    );
    house.age(ALPHA).await;
    let limited = Fault::rate_limited(Duration::from_secs(30)).times(10);
    house.app.fake.inject("oauth.v2.access", limited);
    let ran = house.run(&["refresh", ALPHA, "--yes"]).await;
    ran.ends(7);
    assert!(ran.err.contains("it is not tried before 20"), "{ran:?}");
}

#[tokio::test]
async fn reconcile_names_the_code_of_an_unclear_response() {
    let house = House::new().await;
    house.install(ADA).await;
    let fault = Fault::error("fatal_error").times(100);
    house.app.fake.inject("auth.test", fault);
    let sweep = ["reconcile", "--pause", "0", "--dry-run"];
    let ran = house.run(&sweep).await;
    assert!(
        ran.ends(0).contains("T0ALPHA0001: Unclear(fatal_error)\n"),
        "{ran:?}"
    );
    let json = house.run_json(&sweep).await.json();
    assert_eq!(json["findings"][0]["verdict"], "Unclear(fatal_error)");
    // Slack does not respond for one of two tenants.
    house.app.fake.clear_faults();
    // A call is repeated once.
    let fault = Fault::unavailable().times(2);
    house.app.fake.inject("auth.test", fault);
    house.install(BOB).await;
    let ran = house.run(&sweep).await;
    assert!(ran.ends(0).contains(": Unclear\n"), "{ran:?}");
    assert!(!ran.out.contains("for any tenant"), "{ran:?}");
    // Slack does not respond at all.
    let mut house = house;
    house.set("SLACK_URL", Some("http://127.0.0.1:9"));
    let ran = house.run(&sweep).await;
    assert!(
        ran.ends(0)
            .contains("Slack gave no usable response for any tenant"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn a_missing_value_names_the_option_for_a_file_unless_it_is_given() {
    let mut house = House::new().await;
    house.set("SLACK_CLIENT_ID", None);
    let ran = house.run(&["list"]).await;
    ran.ends(2);
    assert!(ran.err.contains("SLACK_CLIENT_ID is not set"), "{ran:?}");
    assert!(ran.err.contains("or pass --config FILE"), "{ran:?}");
    std::fs::write(house.path("empty.conf"), "").expect("the directory is ours");
    let ran = house.run(&["list", "--config", "empty.conf"]).await;
    ran.ends(2);
    assert!(!ran.err.contains("--config"), "{ran:?}");
}

#[tokio::test]
async fn a_tail_without_records_says_so_on_the_standard_error() {
    let (house, _) = super::audits::house().await;
    let tail = ["audit", "tail", "--of", "T0NOBODY"];
    let ran = house.run(&tail).await;
    assert_eq!(ran.ends(0), "");
    assert_eq!(ran.err, "no record meets the conditions\n");
    let json = house.run_json(&tail).await;
    assert_eq!((json.ends(0), json.err.as_str()), ("", ""));
}
