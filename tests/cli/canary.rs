//! No command shows a secret.

use super::House;
use crate::support::app::{ADA, ALPHA, BRAVO};
use crate::support::leaks::leaks;

/// Every command, in an order in which each finds what it needs.
pub(crate) const COMMANDS: &[&[&str]] = &[
    &["doctor"],
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
    &[
        "webhook",
        "remove",
        ALPHA,
        "--channel",
        "C0GENERAL01",
        "--yes",
    ],
    &["reconcile", "--pause", "0", "--reason", "r", "--yes"],
    &["audit", "tail"],
    &["audit", "export"],
    &["audit", "verify"],
    &["audit", "baseline", "--yes"],
    &["audit", "erase", BRAVO, "--yes"],
    &[
        "keys",
        "promote",
        "00000000000000000000000000000000",
        "--yes",
    ],
    &[
        "keys",
        "destroy",
        "00000000000000000000000000000000",
        "--yes",
    ],
    &["completions", "bash"],
    &["completions", "zsh"],
    &["completions", "fish"],
    &["completions", "elvish"],
    &["completions", "powershell"],
    &["man", "pages"],
    &["manifest", "--name", "N"],
    &["check-manifest", "manifest.yaml"],
    &["check-manifest", "secrets.yaml"],
    &["--help"],
    &["--version"],
    &["revoke", ALPHA, "--reason", "r", "--yes"],
    &["purge", BRAVO, "--reason", "r", "--yes"],
    &["explain", ALPHA],
    &["man"],
];

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
    // Somebody gives the file of the variables as a manifest.
    let lines: String = (secrets.iter().zip('A'..))
        .map(|(secret, name)| format!("{name}: {secret}\n{name}={secret}\n"))
        .collect();
    for (name, lines) in [
        (
            "manifest.yaml",
            "display_information:\n  name: N\n".to_owned(),
        ),
        ("secrets.yaml", lines.clone()),
    ] {
        std::fs::write(house.path(name), lines).expect("the directory is ours");
    }
    for arguments in COMMANDS {
        for ran in [house.run(arguments).await, house.run_json(arguments).await] {
            let is_wrong = ran.code == 1 && arguments[0] == "check-manifest";
            let is_right = [0, 3, 4].contains(&ran.code) || is_wrong;
            assert!(is_right, "{arguments:?} {ran:?}");
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

/// A program that runs for a while, with all its secrets in files, and what the system shows of it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn neither_the_arguments_nor_the_environment_of_a_running_program_have_a_secret() {
    use slack_installs::testing::Fault;
    use std::time::Duration;

    let mut house = House::new().await;
    house.install(ADA).await;
    let mut secrets = house.app.fake.secrets();
    secrets.push(house.master_key.clone());
    for name in ["SLACK_CLIENT_SECRET", "SLACK_INSTALLS_URL"] {
        let value = house.values[name].clone();
        std::fs::write(house.path(name), &value).expect("the directory is ours");
        house.set(name, None);
        house.set(&format!("{name}_FILE"), Some(name));
        secrets.push(value);
    }
    std::fs::write(house.path("old"), "an-old-client-secret").expect("the directory is ours");
    house.set("SLACK_OLD_CLIENT_SECRET_COMMAND", Some("cat old"));
    secrets.push("an-old-client-secret".to_owned());
    let slow = || Fault::delay(Duration::from_secs(60));
    for (arguments, method) in [
        (&["reconcile", "--pause", "0", "--dry-run"][..], "auth.test"),
        (
            &["revoke", ALPHA, "--reason", "r", "--yes"],
            "apps.uninstall",
        ),
        (&["refresh", ALPHA, "--leaked", "--yes"], "oauth.v2.access"),
    ] {
        house
            .run(&["thaw", ALPHA, "--reason", "r", "--yes"])
            .await
            .ends(0);
        let calls = house.app.fake.calls(method);
        house.app.fake.inject(method, slow());
        let mut running = house.command(arguments).spawn().expect("it starts");
        let process = running.id().expect("it runs");
        // The values were read, and the program waits for Slack.
        house.waits_for(method, calls).await;
        for part in ["cmdline", "environ", "comm", "status"] {
            let shown = std::fs::read(format!("/proc/{process}/{part}")).expect("it runs");
            assert!(!shown.is_empty(), "{part}");
            for secret in secrets.iter().filter(|secret| secret.len() >= 8) {
                assert!(!leaks(&shown, secret), "{arguments:?} {part}");
            }
        }
        running.kill().await.expect("it runs");
    }
}
