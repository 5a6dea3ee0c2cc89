//! What all commands have in common. A new command fails here until the table has it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use slack_installs::MasterKey;
use slack_installs::backend::Version;

use super::docs::commands;
use super::trial::fill;
use super::{House, audits, canary, hostile, keys};
use crate::support::app::{ADA, ALPHA, BRAVO};

/// What a command does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Does {
    /// It reads the database.
    Reads,
    /// It changes the database, after a confirmation.
    Changes,
    /// It prepares a database, and asks nothing.
    Prepares,
    /// It needs no database.
    Else,
}

use Does::{Changes, Else, Prepares, Reads};

/// A command and its arguments. [`NEW`] stands for the id of a data key.
pub(crate) type Case = (&'static str, &'static [&'static str], Does);

/// A data key that was added, and can be promoted or destroyed.
const NEW: &str = "NEW";

/// No row.
pub(crate) const NONE: [&str; 0] = [];

/// One of the tenants that [`fill`] made. Slack does not know its tokens.
const FILLED: &str = "T1FILL000007";

/// Every command.
pub(crate) const EVERY: [Case; 32] = [
    ("doctor", &[], Reads),
    ("explain", &[ALPHA], Reads),
    ("show", &[ALPHA], Reads),
    ("list", &[], Reads),
    ("stats", &[], Reads),
    ("verify", &[], Reads),
    ("refresh", &[ALPHA], Changes),
    ("freeze", &[ALPHA, "--reason", "r"], Changes),
    ("thaw", &[BRAVO, "--reason", "r"], Changes),
    ("revoke", &[ALPHA, "--reason", "r"], Changes),
    ("purge", &[FILLED, "--reason", "r"], Changes),
    (
        "reconcile",
        &[
            "--pause",
            "0",
            "--most-purges",
            "99",
            "--most-percent",
            "99",
        ],
        Changes,
    ),
    (
        "webhook remove",
        &[ALPHA, "--channel", "C0GENERAL01"],
        Changes,
    ),
    ("keys list", &[], Reads),
    ("keys add", &[], Changes),
    ("keys promote", &[NEW], Changes),
    ("keys reseal", &[], Changes),
    ("keys destroy", &[NEW], Changes),
    ("keys rewrap", &[], Changes),
    ("check-manifest", &["manifest.yaml"], Else),
    ("manifest", &["--name", "N"], Else),
    ("audit tail", &[], Reads),
    ("audit verify", &[], Reads),
    ("audit export", &[], Reads),
    ("audit baseline", &[], Changes),
    ("audit erase", &[ALPHA], Changes),
    ("migrate", &[], Prepares),
    (
        "copy",
        &["env:SLACK_INSTALLS_URL", "sqlite:copied"],
        Prepares,
    ),
    ("init", &[], Else),
    ("completions", &["bash"], Else),
    ("man", &[], Else),
    ("man", &["pages"], Else),
];

/// An app with a log, and something for every command to act on.
pub(crate) struct All {
    pub(crate) house: House,
    new: String,
}

impl All {
    /// Fills a house.
    pub(crate) async fn new(house: House) -> Self {
        house.install(ADA).await;
        house.install("U0BRAVO0001").await;
        fill(&house.app.store, 30).await;
        // Most rows are under a retired key, and every key can be wrapped by a new master key.
        let second = keys::minutes_ago(&house, 90).keys().add().await;
        let second = second.expect("adds");
        let earlier = keys::minutes_ago(&house, 60);
        let promoted = earlier.keys().promote(second, false).await;
        assert!(promoted.expect("promotes"));
        let new = keys::minutes_ago(&house, 16).keys().add().await;
        let new = new.expect("adds").to_string();
        audits::log(&house).await;
        let master = MasterKey::generate().to_base64();
        let both = format!("{}\n{}\n", *master, house.master_key);
        std::fs::write(house.path("key"), both).expect("the file is ours");
        let freeze = ["freeze", BRAVO, "--reason", "before", "--yes"];
        house.run(&freeze).await.ends(0);
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifest/example.yaml");
        std::fs::copy(example, house.path("manifest.yaml")).expect("the directory is ours");
        Self { house, new }
    }

    /// Returns the arguments of a command.
    pub(crate) fn arguments(&self, (path, rest, _): Case) -> Vec<&str> {
        let rest = rest
            .iter()
            .map(|it| if *it == NEW { &self.new } else { *it });
        path.split(' ').chain(rest).collect()
    }

    /// Returns the arguments with which a command runs in a test: a change without a confirmation.
    pub(crate) fn confirmed(&self, case: Case) -> Vec<&str> {
        let mut arguments = self.arguments(case);
        if case.2 == Changes {
            arguments.push("--yes");
        }
        arguments
    }

    /// Returns the arguments with which a command changes nothing in this database.
    fn harmless(&self, case: Case) -> Vec<&str> {
        let mut arguments = self.arguments(case);
        if case.2 == Changes || case.0 == "migrate" {
            arguments.push("--dry-run");
        }
        arguments
    }

    /// Returns the rows that differ from these.
    pub(crate) async fn changed(&self, before: &BTreeMap<String, Version>) -> Vec<String> {
        let now = self.house.rows().await;
        let all: BTreeSet<_> = before.keys().chain(now.keys()).collect();
        let changed = all
            .into_iter()
            .filter(|row| before.get(*row) != now.get(*row));
        changed.cloned().collect()
    }

    /// Returns the word that confirms this change.
    pub(crate) fn word(&self, (path, rest, _): Case) -> &str {
        match (path, rest.first()) {
            (_, Some(&NEW)) => &self.new,
            (_, Some(first)) if !first.starts_with('-') => first,
            _ => path.split(' ').next_back().unwrap_or_default(),
        }
    }
}

async fn all() -> All {
    All::new(House::new().await).await
}

/// Removes the files that some commands do not replace.
pub(crate) fn cleared(house: &House) {
    for name in [
        "copied",
        "copied-wal",
        "copied-shm",
        "master-key",
        "slack-installs.conf",
    ] {
        drop(std::fs::remove_file(house.path(name)));
    }
}

/// Returns every command of the help, with its help.
async fn of_help(house: &House) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![String::new()];
    while let Some(path) = open.pop() {
        let arguments: Vec<_> = path.split_whitespace().chain(["--help"]).collect();
        let help = house.run(&arguments).await;
        let inner = commands(help.ends(0));
        if inner.is_empty() {
            found.push((path.trim().to_owned(), help.out));
        }
        open.extend(inner.iter().map(|inner| format!("{path} {inner}")));
    }
    found
}

#[tokio::test]
async fn every_command_is_in_the_table_and_every_change_has_a_dry_run_and_a_confirmation() {
    let house = House::new().await;
    let mut named = BTreeSet::new();
    for (path, help) in of_help(&house).await {
        let case = EVERY.iter().find(|case| case.0 == path);
        let (_, _, does) = case.unwrap_or_else(|| panic!("the table lacks `{path}`"));
        assert_eq!(help.contains("--yes"), *does == Changes, "{path}");
        let is_dry = *does == Changes || path == "migrate";
        assert_eq!(help.contains("--dry-run"), is_dry, "{path}");
        named.insert(path);
    }
    assert!(EVERY.iter().all(|case| named.contains(case.0)), "{named:?}");
}

/// Checks that a list of commands has every command of the help.
async fn has_all<'a>(what: &str, list: impl Iterator<Item = &'a [&'a str]>) {
    let list: Vec<String> = list.map(|arguments| arguments.join(" ") + " ").collect();
    for (path, _) in of_help(&House::new().await).await {
        let is_in = list.iter().any(|it| it.starts_with(&format!("{path} ")));
        assert!(is_in, "{what} lacks `{path}`");
    }
}

#[tokio::test]
async fn the_test_of_secrets_and_the_test_of_hostile_texts_have_every_command() {
    has_all("canary.rs", canary::COMMANDS.iter().copied()).await;
    let hostile = hostile::COMMANDS.iter().chain(hostile::OF_THE_LOG);
    has_all("hostile.rs", hostile.copied()).await;
}

#[tokio::test]
async fn every_report_and_every_dry_run_ends_well_as_text_and_as_json_and_changes_no_row() {
    let all = all().await;
    let mut before = all.house.rows().await;
    for case in EVERY {
        let arguments = all.harmless(case);
        cleared(&all.house);
        let ran = all.house.run(&arguments).await;
        let is_silent = case == ("man", &["pages"], Else);
        assert_eq!(ran.ends(0).is_empty(), is_silent, "{ran:?}");
        // A starter has placeholders for what is not set, and names them.
        let has_notes = case.0 == "manifest";
        assert_eq!(ran.err.is_empty(), !has_notes, "{ran:?}");
        cleared(&all.house);
        let ran = all.house.run_json(&arguments).await;
        ran.ends(0);
        if !["completions", "man"].contains(&case.0) {
            // Some commands print one object in each line, and a manifest has several lines.
            let values = serde_json::Deserializer::from_str(&ran.out).into_iter::<Value>();
            for value in values {
                let value = value.unwrap_or_else(|_| panic!("not JSON: {ran:?}"));
                let is_dry = case.2 == Changes;
                assert!(!is_dry || value["is_dry_run"] == true, "{value}");
            }
        }
        let changed = all.changed(&before).await;
        // A sweep uses each token to ask Slack about it, and the log says so.
        let is_use = |row: &String| case.0 == "reconcile" && row.contains("/audit");
        assert!(changed.iter().all(is_use), "{arguments:?}: {changed:?}");
        before = all.house.rows().await;
    }
}

#[tokio::test]
async fn every_change_is_refused_without_a_terminal_and_without_yes() {
    let all = all().await;
    let before = all.house.rows().await;
    let calls = all.house.app.fake.call_log().len();
    for case in EVERY.into_iter().filter(|case| case.2 == Changes) {
        let ran = all.house.run(&all.arguments(case)).await;
        ran.ends(4);
        let has_advice = ran.out.is_empty() && ran.err.contains("add --yes");
        // The refusal names the tenant or the data key.
        let has_name =
            case.1.is_empty() || case.0 == "reconcile" || ran.err.contains(all.word(case));
        assert!(has_advice && has_name, "{ran:?}");
        assert_eq!(all.changed(&before).await, NONE, "{case:?}");
    }
    assert_eq!(all.house.app.fake.call_log().len(), calls);
}

/// Runs every command, and checks that those that use the database end with this code, and change
/// nothing. `migrate` ends with another one.
async fn all_end(all: &All, code: i32, of_migrate: i32) {
    for case in EVERY {
        let expected = match case.0 {
            "doctor" => 1,
            "migrate" => of_migrate,
            _ if case.2 == Else => 0,
            _ => code,
        };
        for arguments in [all.harmless(case), all.confirmed(case)] {
            if arguments == ["migrate"] {
                continue;
            }
            cleared(&all.house);
            let ran = all.house.run(&arguments).await;
            ran.ends(expected);
            if expected > 1 {
                assert!(
                    ran.out.is_empty() && ran.err.starts_with("error: "),
                    "{ran:?}"
                );
                let ran = all.house.run_json(&arguments).await;
                let error: Value = serde_json::from_str(&ran.err).expect("JSON");
                assert_eq!(error["error"]["code"], code, "{ran:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_master_key_or_a_wrong_database_ends_every_command_with_its_code() {
    let mut all = all().await;
    let before = all.house.rows().await;
    let calls = all.house.app.fake.call_log().len();
    let right = std::fs::read(all.house.path("key")).expect("a file");
    let wrong = MasterKey::generate().to_base64().to_string();
    std::fs::write(all.house.path("key"), wrong).expect("the file is ours");
    all_end(&all, 6, 0).await;
    std::fs::write(all.house.path("key"), right).expect("the file is ours");
    let url = all.house.values["SLACK_INSTALLS_URL"].clone();
    all.house.set("SLACK_INSTALLS_URL", Some("sqlite:none"));
    all_end(&all, 5, 0).await;
    assert!(!all.house.path("none").exists());
    all.house.set("SLACK_INSTALLS_URL", Some(&url));
    // `doctor` asked Slack for its time, and nothing else.
    let log = all.house.app.fake.call_log();
    assert!(
        log[calls..].iter().all(|call| call.method == "api.test"),
        "{:?}",
        &log[calls..]
    );
    assert_eq!(all.changed(&before).await, NONE);
}

#[tokio::test]
async fn a_wrong_client_secret_is_refused_by_slack_and_no_token_is_lost() {
    let mut all = all().await;
    let token = all.house.app.fake.bot_token(ALPHA).expect("installed");
    let secret = "0123456789abcdef0123456789abcdef";
    all.house.set("SLACK_CLIENT_SECRET", Some(secret));
    all.house.age(ALPHA).await;
    for arguments in [
        &["refresh", ALPHA, "--yes"][..],
        &["revoke", ALPHA, "--reason", "r", "--yes"],
    ] {
        let ran = all.house.run(arguments).await;
        ran.ends(7);
        assert!(!ran.err.contains(secret), "{ran:?}");
        assert!(all.house.app.fake.is_live(token.expose()), "{arguments:?}");
        // The row is there.
        all.house.row(ALPHA, "bot").await;
    }
}
