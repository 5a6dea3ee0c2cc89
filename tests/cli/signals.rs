//! A command that is interrupted.

use std::time::Duration;

use tokio::process::Command;

use super::House;
use crate::support::app::{ADA, ALPHA, key};
use slack_installs::store::Mark;
use slack_installs::testing::Fault;

pub(crate) async fn signal(process: u32, name: &str) {
    let mut kill = Command::new("kill");
    let sent = kill.args([name, &process.to_string()]).status().await;
    assert!(sent.expect("`kill` runs").success());
}

#[tokio::test]
async fn a_signal_ends_a_long_command_with_its_own_code() {
    let house = House::new().await;
    house.install(ADA).await;
    for name in ["-INT", "-TERM"] {
        let calls = house.app.fake.calls("auth.test");
        house
            .app
            .fake
            .inject("auth.test", Fault::delay(Duration::from_secs(60)));
        let running = house
            .command(&["reconcile", "--pause", "0", "--dry-run"])
            .spawn()
            .expect("the program starts");
        house.waits_for("auth.test", calls).await;
        signal(running.id().expect("it runs"), name).await;
        let output = running.wait_with_output().await.expect("it ends");
        assert_eq!(output.status.code(), Some(130), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("interrupted"), "{text}");
    }
}

#[tokio::test]
async fn a_refresh_that_is_interrupted_stores_the_pair_that_slack_issued() {
    let house = House::new().await;
    house.install(ADA).await;
    house.age(ALPHA).await;
    let calls = house.app.fake.calls("oauth.v2.access");
    // Slack issues the pair, and its response is late.
    let slow = Fault::delay(Duration::from_millis(1500)).after_effect();
    house.app.fake.inject("oauth.v2.access", slow);
    let running = house
        .command(&["refresh", ALPHA, "--yes"])
        .spawn()
        .expect("the program starts");
    house.waits_for("oauth.v2.access", calls).await;
    signal(running.id().expect("it runs"), "-INT").await;
    let output = running.wait_with_output().await.expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let stored = house.app.stored(ALPHA, None).await;
    let token = stored.installation.bot.expect("a bot").grant.access_token;
    let live = house.app.fake.bot_token(ALPHA).expect("installed");
    assert_eq!(Mark::of_access_token(&live), Mark::of_access_token(&token));
}

#[tokio::test]
async fn an_interrupt_ends_every_long_command_and_it_runs_again_to_its_end() {
    let house = House::new().await;
    house.install(ADA).await;
    super::trial::fill(&house.app.store, 300).await;
    let before = house.rows().await;
    for (arguments, shown) in [
        (&["doctor"][..], "rows checked: "),
        (&["list"], "tenants read: "),
        (&["stats"], "rows counted: "),
        (&["verify"], "rows opened: "),
        (&["keys", "reseal", "--dry-run"], "rows counted: "),
        (
            &["copy", "env:SLACK_INSTALLS_URL", "sqlite:copy"],
            "rows copied: ",
        ),
    ] {
        let ran = house.on_terminal(80, &[(shown, "\u{3}")], arguments).await;
        // A fast command can be over before the key is pressed.
        if ran.code != 0 {
            assert!(ran.ends(130).contains("error: interrupted"), "{ran:?}");
        }
        let again = house.run(arguments).await;
        let is_copied = ran.code == 0 && arguments[0] == "copy";
        again.ends(if is_copied { 4 } else { 0 });
        assert_eq!(house.rows().await, before, "{arguments:?}");
    }
}

#[tokio::test]
async fn a_reseal_that_was_killed_and_interrupted_is_continued() {
    let house = House::new().await;
    super::trial::fill(&house.app.store, 250).await;
    let ran = house.run_json(&["keys", "add", "--yes"]).await;
    let new = ran.json()["key"].as_str().expect("an id").to_owned();
    let promote = ["keys", "promote", &new, "--force", "--yes"];
    house.run(&promote).await.ends(0);
    let reseal = ["keys", "reseal", "--yes"];
    let is_new = async |n: usize| {
        let tenant = key(&format!("T1FILL{n:06}"));
        let page = house.app.store.inspect_tenant(&tenant).await;
        let rows = page.expect("the database is up").rows;
        rows.iter()
            .all(|row| row.key_id.is_some_and(|id| id.to_string() == new))
    };
    for name in ["-KILL", "-INT"] {
        // A tenant whose rows are sealed again soon after the start.
        let mut n = 0;
        while is_new(n).await {
            n += 1;
        }
        let n = n + 5;
        assert!(n < 200, "the last run was too fast");
        let mut running = house.command(&reseal).spawn().expect("the program starts");
        while !is_new(n).await {
            let is_over = running.try_wait().expect("a child").is_some();
            assert!(!is_over, "it was too fast to be interrupted");
        }
        signal(running.id().expect("it runs"), name).await;
        let status = running.wait().await.expect("a child");
        let code = if name == "-KILL" { None } else { Some(130) };
        assert_eq!(status.code(), code);
        house.run(&["verify"]).await.ends(0);
    }
    house.run(&reseal).await.ends(0);
    let ran = house.run_json(&reseal).await;
    assert_eq!(ran.json()["details"]["resealed"], 0, "{ran:?}");
    let ran = house.run_json(&["stats"]).await;
    let under = ran.json()["rows_by_key"]
        .as_object()
        .expect("a map")
        .clone();
    assert_eq!(under.keys().collect::<Vec<_>>(), [&new]);
}

#[tokio::test]
async fn a_revocation_that_was_killed_keeps_the_tenant_on_hold_and_is_completed_by_another() {
    let house = House::new().await;
    house.install(ADA).await;
    let slow = Fault::delay(Duration::from_secs(60)).after_effect();
    house.app.fake.inject("apps.uninstall", slow);
    let revoke = ["revoke", ALPHA, "--reason", "ticket", "--yes"];
    let mut running = house.command(&revoke).spawn().expect("the program starts");
    house.waits_for("apps.uninstall", 0).await;
    signal(running.id().expect("it runs"), "-KILL").await;
    running.wait().await.expect("a child");
    let report = house.run_json(&["explain", ALPHA]).await.json();
    assert_eq!(report["hold"]["is_on"], true, "{report}");
    house.run(&revoke).await.ends(0);
    assert!(house.app.fetch(ALPHA, None).await.is_none());
    assert!(!house.app.fake.is_installed(ALPHA));
}

#[tokio::test]
async fn a_refresh_that_was_killed_leaves_a_lease_and_another_one_gets_a_live_pair() {
    let house = House::new().await;
    house.install(ADA).await;
    house.age(ALPHA).await;
    let calls = house.app.fake.calls("oauth.v2.access");
    let slow = Fault::delay(Duration::from_secs(60)).after_effect();
    house.app.fake.inject("oauth.v2.access", slow);
    let refresh = ["refresh", ALPHA, "--yes"];
    let mut running = house.command(&refresh).spawn().expect("the program starts");
    house.waits_for("oauth.v2.access", calls).await;
    signal(running.id().expect("it runs"), "-KILL").await;
    running.wait().await.expect("a child");
    house
        .change_chain(ALPHA, |chain| {
            let lease = chain.lease.as_mut().expect("a lease");
            lease.until = super::ago(3600);
        })
        .await;
    let ran = house.run_json(&["doctor"]).await;
    let kinds = super::kinds(&ran.json(), "checks", "name");
    assert!(kinds.contains(&"orphaned_lease".to_owned()), "{kinds:?}");
    house.run(&refresh).await.ends(0);
    let stored = house.app.stored(ALPHA, None).await;
    let token = stored.installation.bot.expect("a bot").grant.access_token;
    assert!(house.app.fake.is_live(token.expose()));
    house.run(&["doctor"]).await.ends(0);
}
