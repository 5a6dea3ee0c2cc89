//! The pages for operators describe every command, option and exit code.

use std::fs;
use std::path::Path;

use super::House;

fn page(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join("docs").join(name)).expect("the page exists")
}

/// Returns the names in the list of commands of a help text.
pub(crate) fn commands(help: &str) -> Vec<String> {
    let list = help.split("Commands:\n").nth(1).unwrap_or_default();
    let list = list.split("\n\n").next().unwrap_or_default();
    let names = list
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn every_command_and_option_of_the_help_is_on_the_page_for_operators() {
    let house = House::new().await;
    let page = page("operations.md");
    let help = house.run(&["--help"]).await;
    let mut open: Vec<Vec<String>> = commands(help.ends(0))
        .into_iter()
        .map(|it| vec![it])
        .collect();
    assert!(open.len() > 15, "{open:?}");
    while let Some(path) = open.pop() {
        let name = path.join(" ");
        let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = house.run(&arguments).await;
        let inner = commands(help.ends(0));
        if inner.is_empty() {
            assert!(page.contains(&format!("slack-installs {name}")), "{name}");
        }
        for inner in inner {
            open.push([&path[..], &[inner]].concat());
        }
        let words = help
            .out
            .split(|it: char| it.is_whitespace() || "[],=".contains(it));
        for option in words.filter(|word| word.starts_with("--") && word.len() > 2) {
            let option = option.trim_end_matches(['.', ';']);
            let is_described = ["--help", "--version"].contains(&option) || page.contains(option);
            assert!(is_described, "{name} {option}");
        }
    }
}

#[test]
fn every_exit_code_is_on_the_page_for_operators() {
    let page = page("operations.md");
    for (code, name) in [
        (0, "ok"),
        (1, "failed"),
        (2, "usage"),
        (3, "not found"),
        (4, "refused"),
        (5, "database"),
        (6, "keys"),
        (7, "Slack"),
        (8, "damaged data"),
        (130, "interrupted"),
    ] {
        assert!(page.contains(&format!("| {code} | {name} |")), "{code}");
    }
}

#[test]
fn the_runbook_has_an_entry_for_every_kind_of_finding() {
    let page = page("runbook.md");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = fs::read_to_string(root.join("src/inspect/finding.rs")).expect("the source");
    let words = source.lines().filter_map(|line| {
        let rest = line.strip_prefix("pub(super) const ")?;
        rest.split('"').nth(1)
    });
    let words: Vec<_> = words.chain(["access_revoked"]).collect();
    assert!(words.len() > 10, "{words:?}");
    for word in words {
        assert!(page.contains(&format!("`{word}`")), "{word}");
    }
}

#[test]
fn the_runbook_has_every_text_of_a_keyrings_error() {
    let page = page("runbook.md");
    for text in [
        "the keyring cannot be read or written",
        "rows are being copied into this database",
        "the target of the copy is already a store of this app",
        "the data key cannot be used",
        "the database has rows of this app but not its keyring",
        "the key provider unwraps a new data key to another key than it wrapped",
        "no copy into the target is in progress",
        "the keyring was rolled back, or a row was planted",
        "a row of the keyring is missing",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn the_runbook_has_every_text_of_a_refused_change_of_keys() {
    let page = page("runbook.md");
    for text in [
        "rows are sealed under the data key",
        "is not a distributed one",
        "have not unwrapped the data key",
        "is the primary: promote another one first",
        "other processes may not have followed the last change",
        "cannot be parsed, so they may need the data key",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn the_runbook_has_what_a_failed_command_says_that_it_has_done() {
    let page = page("runbook.md");
    let text = page.split_whitespace().collect::<Vec<_>>().join(" ");
    for said in [
        "nothing was changed",
        "its data is kept",
        "its data is deleted",
        "the tenant is on hold now",
        "the tenant stays on hold, as before",
        "it is not known what was changed",
        "Slack has removed the app or revoked its tokens",
        "tenants that were deleted or corrected before stay so",
        "the old token is no longer handed out, and there is no new one yet",
        "the dead mark is cleared, so the app tries the refresh tokens again",
        "the pair was replaced, but the old tokens could not be revoked",
        "and the copy is not finished",
        "lacks table slack_rows, which its schema has",
        "it responds, but lacks",
        "itself: check the id; the app is installed in",
        "the app is not installed in the organisation as a whole, but in workspaces of it",
        "has a wrong value",
    ] {
        assert!(text.contains(said), "{said}");
    }
}

#[test]
fn the_runbook_has_every_text_that_an_operator_meets_first() {
    let page = page("runbook.md");
    for text in [
        "does not exist or cannot be opened",
        "the tables are missing or old",
        "the database has no data keys yet for this app",
        "is not a database of slack-installs",
        "not a database URL",
        "refused the user or the password",
        "permission denied",
        "the stored installation has changed since it was read",
        "removes rows when its memory is full",
        "the log is not intact",
        "events were not recorded, because the queue was full",
        "the log is too long to be verified",
        "not confirmed",
        "interrupted",
    ] {
        assert!(page.contains(text), "{text}");
    }
}
