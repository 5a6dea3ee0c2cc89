//! No command shows a secret.

use super::House;
use crate::support::app::{ADA, ALPHA, BRAVO};
use crate::support::leaks::leaks;

#[tokio::test]
async fn no_command_shows_a_token_a_webhook_url_or_a_key_in_any_form() {
    let mut house = House::new().await;
    house.install(ADA).await;
    house.install("U0BRAVO0001").await;
    let stored = house.app.stored(ALPHA, None).await;
    let hooks = stored.incoming_webhooks.iter();
    let mut secrets: Vec<_> = hooks.map(|hook| hook.url.expose().to_owned()).collect();
    assert_eq!(secrets.len(), 1);
    secrets.push(house.master_key.clone());
    secrets.push(house.values["SLACK_CLIENT_SECRET"].clone());
    let mut seen = String::new();
    house.age(ALPHA).await;
    for arguments in [
        &["doctor"][..],
        &["explain", ALPHA],
        &["show", ALPHA],
        &["list"],
        &["stats"],
        &["verify"],
        &["refresh", ALPHA, "--yes"],
        &["refresh", ALPHA, "--leaked", "--yes"],
        &["freeze", BRAVO, "--reason", "r", "--yes"],
        &["explain", BRAVO],
        &["thaw", BRAVO, "--reason", "r", "--yes"],
        &["reconcile", "--pause", "0", "--dry-run"],
        &["copy", "env:SLACK_INSTALLS_URL", "sqlite:copy.sqlite3"],
        &["verify", "--database", "sqlite:copy.sqlite3"],
        &["migrate", "--dry-run"],
        &["keys", "add", "--yes"],
        &["keys", "list"],
        &["keys", "reseal", "--yes"],
        &["keys", "rewrap", "--yes"],
        &["init"],
        &["revoke", ALPHA, "--reason", "r", "--yes"],
        &["purge", BRAVO, "--reason", "r", "--yes"],
        &["explain", ALPHA],
        &["man"],
    ] {
        for ran in [house.run(arguments).await, house.run_json(arguments).await] {
            assert!([0, 3, 4].contains(&ran.code), "{arguments:?} {ran:?}");
            seen.push_str(&ran.out);
            seen.push_str(&ran.err);
        }
    }
    // Values that are wrong, or in a wrong place.
    for name in [
        "SLACK_CLIENT_ID",
        "SLACK_INSTALLS_URL",
        "SLACK_INSTALLS_KEYS",
        "SLACK_URL",
    ] {
        let old = house.values.get(name).cloned();
        house.set(name, Some("canary-value-CANARY"));
        let ran = house.run(&["doctor"]).await;
        assert_ne!(ran.code, 0, "{name}");
        seen.push_str(&ran.err);
        seen.push_str(&ran.out);
        house.set(name, old.as_deref());
    }
    let ran = house
        .run(&[
            "stats",
            "--database",
            "postgres://u:canary-value-CANARY@h/d",
        ])
        .await;
    ran.ends(2);
    seen.push_str(&ran.err);
    secrets.push("canary-value-CANARY".into());
    secrets.extend(house.app.fake.secrets());
    assert!(
        seen.contains(ALPHA) && seen.contains("C0GENERAL01"),
        "{seen}"
    );
    for secret in secrets.iter().filter(|secret| secret.len() >= 8) {
        assert!(!leaks(seen.as_bytes(), secret), "{} leaks", &secret[..6]);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_arguments_of_a_running_program_hold_no_secret() {
    let house = House::new().await;
    house.install(ADA).await;
    house.install("U0BRAVO0001").await;
    let mut running = house
        .command(&["reconcile", "--pause", "60000", "--dry-run"])
        .spawn()
        .expect("the program starts");
    let process = running.id().expect("it runs");
    // A new process has the arguments of its parent until it becomes the program.
    let arguments = loop {
        let arguments = std::fs::read(format!("/proc/{process}/cmdline")).expect("it runs");
        let arguments = String::from_utf8_lossy(&arguments).into_owned();
        if arguments.contains("60000") {
            break arguments;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    let mut secrets = house.app.fake.secrets();
    secrets.push(house.master_key.clone());
    for secret in secrets.iter().filter(|secret| secret.len() >= 8) {
        assert!(!leaks(arguments.as_bytes(), secret), "{arguments}");
    }
    running.kill().await.expect("it runs");
}
