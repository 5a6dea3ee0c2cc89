//! Texts that a tenant chose do not reach the terminal as they are.

use slack_installs::{Home, InstallationStore as _, Team};

use super::House;
use crate::support::installs::{With as _, in_workspace, team};

/// An argument cannot have a NUL.
const HIDDEN: &str = "\u{1b}[2J\u{9b}31m\r\n\u{202e}";
const CHANNEL: &str = "C0\u{1b}[2J\u{9b}31m\u{202e}";
const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\r\nok\u{202e}lived\u{0}";

/// The commands that meet a hostile name, or get a hostile argument.
pub(crate) const COMMANDS: &[&[&str]] = &[
    &["explain", "T0HOSTILE01"],
    &["explain", "T0HOSTILE02"],
    &["show", "T0HOSTILE01"],
    &["list"],
    &["doctor"],
    &["stats"],
    &["verify"],
    &["refresh", "T0HOSTILE01", "--dry-run"],
    &["freeze", "T0HOSTILE02", "--reason", HIDDEN, "--dry-run"],
    &["thaw", "T0HOSTILE01", "--reason", HIDDEN, "--dry-run"],
    &["revoke", "T0HOSTILE02", "--reason", HIDDEN, "--dry-run"],
    &["revoke", "T0HOSTILE02", "--reason", HIDDEN],
    &["webhook", "remove", "T0HOSTILE01", "--channel", HIDDEN],
    &[
        "webhook",
        "remove",
        "T0HOSTILE01",
        "--channel",
        CHANNEL,
        "--dry-run",
    ],
    &["webhook", "remove", "T0HOSTILE02", "--channel", CHANNEL],
    &["reconcile", "--pause", "0", "--reason", HIDDEN, "--dry-run"],
    &["keys", "reseal", "--dry-run"],
    &["keys", "promote", HIDDEN],
    &["keys", "destroy", HIDDEN],
    &["keys", "add", "--reason", HIDDEN, "--dry-run"],
    &["keys", "rewrap", "--reason", HIDDEN, "--dry-run"],
    &["keys", "list"],
    &["migrate", "--dry-run"],
    &["migrate", "--database", HIDDEN],
    &["copy", HIDDEN, "sqlite:copy"],
    &["copy", "env:SLACK_INSTALLS_URL", HIDDEN],
    &["init", "--directory", HIDDEN],
    &["man", "\u{1b}[2J/\u{1b}[2J"],
    &["manifest", "--name", HIDDEN],
    &["list", "--key", HIDDEN],
    &["list", "--organisation", HIDDEN],
    &["stats", "--database", HIDDEN],
    &["stats", "--config", HIDDEN],
    &["check-manifest", HIDDEN],
    &["completions", HIDDEN],
    &["purge", "T0HOSTILE01", "--reason", "r", "--dry-run"],
    &["purge", "T0HOSTILE01", "--reason", "r"],
    &["explain", "\u{1b}[2J"],
];

/// The commands that meet a hostile reason in the audit log.
pub(crate) const OF_THE_LOG: &[&[&str]] = &[
    &["audit", "tail"],
    &["audit", "export"],
    &["audit", "verify"],
    &["audit", "baseline", "--reason", HIDDEN, "--dry-run"],
    &["audit", "erase", "T0ALPHA0001"],
    &["audit", "tail", "--actor", HIDDEN],
    &["explain", "T0ALPHA0001"],
    &["doctor"],
];

#[tokio::test]
async fn a_hostile_name_is_escaped_in_every_output_and_a_long_one_is_cut() {
    let house = House::new().await;
    for (id, name) in [
        ("T0HOSTILE01", HOSTILE.to_owned()),
        ("T0HOSTILE02", "x".repeat(60_000)),
    ] {
        let mut tenant = in_workspace(id).with_bot("xoxb-1");
        let team = Team {
            id: team(id),
            name: Some(name),
        };
        tenant.home = Home::new(None, Some(team), false).expect("a tenant");
        tenant.incoming_webhooks =
            vec![crate::support::installs::webhook(CHANNEL, "https://a.b/c")];
        house.app.store.store(&tenant).await.expect("stored");
    }
    let freeze = [
        "freeze",
        "T0HOSTILE01",
        "--reason",
        HOSTILE.trim_end_matches('\0'),
        "--yes",
    ];
    house.run(&freeze).await.ends(0);
    for arguments in COMMANDS {
        for ran in [house.run(arguments).await, house.run_json(arguments).await] {
            let text = format!("{}{}", ran.out, ran.err);
            let is_safe = |it: char| it == '\n' || !it.is_control() && it != '\u{202e}';
            assert!(text.chars().all(is_safe), "{arguments:?} {text:?}");
        }
        let ran = house.run(arguments).await;
        assert!(ran.out.len() + ran.err.len() < 10_000, "{arguments:?}");
    }
    let ran = house.run_json(&["explain", "T0HOSTILE01"]).await;
    assert_eq!(ran.json()["installation"]["team_name"], HOSTILE);
}

#[tokio::test]
async fn a_hostile_reason_in_the_audit_log_is_escaped() {
    let (house, _) = super::audits::house().await;
    let freeze = ["freeze", "T0ALPHA0001", "--reason", HIDDEN, "--yes"];
    house.run(&freeze).await.ends(0);
    for arguments in OF_THE_LOG {
        for ran in [house.run(arguments).await, house.run_json(arguments).await] {
            let text = format!("{}{}", ran.out, ran.err);
            let is_safe = |it: char| it == '\n' || !it.is_control() && it != '\u{202e}';
            assert!(text.chars().all(is_safe), "{arguments:?} {text:?}");
        }
    }
    let ran = house.run(&["audit", "tail"]).await;
    assert!(ran.out.contains("freeze: \\u{1b}[2J"), "{ran:?}");
}
