//! What a terminal shows, and that the page for operators shows the same.

use slack_installs::store::{Lease, LifecycleStore as _};
use slack_installs::testing::Who;
use slack_installs::{Hold, Home, InstallationStore as _, Team};

use super::{House, ago};
use crate::support::app::{ADA, ALPHA, BRAVO, OLGA, ORG, key};
use crate::support::installs::{With as _, in_workspace, team};

/// A house with a sound tenant, and one that lacks scopes.
async fn house() -> House {
    let mut house = House::new().await;
    house.install(ADA).await;
    house.install("U0BRAVO0001").await;
    house.set("SLACK_INSTALLS_SCOPES", Some("commands,files:read"));
    house
}

async fn trouble(house: &House) {
    house
        .change_chain(ALPHA, |chain| {
            chain.lease = Some(Lease {
                owner: 7,
                until: ago(3600),
            });
        })
        .await;
    house
        .change_chain(BRAVO, |chain| {
            chain.is_dead = true;
            chain.last_error = Some("invalid_refresh_token".into());
        })
        .await;
    let hold = Hold {
        is_on: true,
        reason: "ticket".to_owned(),
        at: ago(60),
    };
    let held = house.app.store.hold(&key(BRAVO), &hold).await;
    assert!(held.expect("stored"));
    house.damage(BRAVO, "install").await;
}

/// Returns the lines as they stay on the screen, without colours.
fn lines(shown: &str) -> Vec<String> {
    let shown = shown.replace("\r\n", "\n");
    // A progress bar is erased before anything else is written.
    let kept = shown.rsplit("\u{1b}[2K").next().unwrap_or_default();
    let mut plain = String::new();
    let mut rest = kept.chars();
    while let Some(char) = rest.next() {
        if char == '\u{1b}' {
            let colour: String = rest.by_ref().take_while(|it| *it != 'm').collect();
            assert!(colour.starts_with('['), "{colour:?} in {shown:?}");
        } else {
            plain.push(char);
        }
    }
    plain.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn reports_fit_into_a_terminal_and_commands_are_not_broken() {
    let house = house().await;
    trouble(&house).await;
    for columns in [80, 120] {
        for (arguments, code) in [
            (&["doctor"][..], 1),
            (&["explain", ALPHA], 0),
            (&["explain", BRAVO], 0),
            (&["stats"], 0),
        ] {
            let ran = house.on_terminal(columns, &[], arguments).await;
            let shown = lines(ran.ends(code));
            assert!(shown.len() > 2, "{ran:?}");
            for line in &shown {
                let width = line.trim_start().chars().count();
                let is_command = line.trim_start().starts_with("`slack-installs");
                assert!(
                    width + 8 <= columns || is_command || line.chars().count() <= columns,
                    "{columns} {line}"
                );
                assert_eq!(line.matches('`').count() % 2, 0, "{line}");
                assert!(!line.ends_with(' '), "{line:?}");
            }
            let has_colours = ran.out.contains("\u{1b}[3");
            assert_eq!(
                has_colours,
                ["doctor", "explain"].contains(&arguments[0]),
                "{ran:?}"
            );
        }
    }
}

/// Returns whether a line ends with a word after which nothing can be broken, such as a URL, or with
/// a command: such a line may be too long.
fn is_one_word(line: &str) -> bool {
    let last = line.rsplit("  ").next().unwrap_or_default();
    !last.contains(' ') || last.starts_with('`') && last.matches('`').count() == 2
}

#[tokio::test]
async fn every_report_fits_into_a_terminal_and_an_id_is_never_broken() {
    let (mut house, _) = super::audits::house().await;
    house.install("U0BRAVO0001").await;
    house.install(Who::user(OLGA).at(ORG)).await;
    let mut long = in_workspace("T0LONGNAME1").with_bot("xoxb-1");
    let name = Some("Wonderful Widgets and Wheels Ltd, 日本語の名前".to_owned());
    let team = Team {
        id: team("T0LONGNAME1"),
        name,
    };
    long.home = Home::new(None, Some(team), false).expect("a tenant");
    house.app.store.store(&long).await.expect("stored");
    trouble(&house).await;
    let scopes =
        "app_mentions:read,channels:history,channels:read,files:read,files:write,users:read";
    house.set("SLACK_INSTALLS_SCOPES", Some(scopes));
    let bad = "oauth_config:\n  redirect_urls: []\n";
    std::fs::write(house.path("bad.yaml"), bad).expect("the directory is ours");
    let key = house.run_json(&["keys", "list"]).await.json();
    let key = key["keys"][0]["id"].as_str().expect("an id").to_owned();
    let show = house.run_json(&["show", ALPHA]).await.json();
    let version = show["rows"][0]["version"].as_str().expect("hex").to_owned();
    for columns in [60, 80, 120, 200] {
        for (arguments, code, ids) in [
            (&["list"][..], 0, &[ALPHA, BRAVO, ORG, "T0LONGNAME1"][..]),
            (&["list", "--damaged"], 0, &[BRAVO]),
            (&["show", ALPHA], 0, &[&key, &version]),
            (&["show", BRAVO], 0, &[&key]),
            (&["stats"], 0, &[&key]),
            (&["verify"], 8, &[BRAVO]),
            (&["doctor"], 1, &[BRAVO]),
            (&["explain", ALPHA], 0, &[ALPHA, &key]),
            (&["explain", "T0NOBODY"], 3, &["T0NOBODY", ORG]),
            (&["keys", "list"], 0, &[&key]),
            (&["keys", "rewrap", "--dry-run"], 0, &[]),
            (&["audit", "tail"], 0, &[ALPHA]),
            (&["audit", "verify"], 8, &[]),
            (
                &["purge", ALPHA, "--reason", "a reason", "--dry-run"],
                0,
                &[ALPHA],
            ),
            (&["revoke", BRAVO, "--reason", "r", "--yes"], 8, &[BRAVO]),
            (&["check-manifest", "bad.yaml"], 1, &[]),
            (&["migrate", "--dry-run"], 0, &[]),
        ] {
            let ran = house.on_terminal(columns, &[], arguments).await;
            let shown = lines(ran.ends(code));
            for line in &shown {
                let width = console::measure_text_width(line);
                assert!(
                    width <= columns || is_one_word(line),
                    "{columns} {arguments:?} {line:?}"
                );
                assert_eq!(line.matches('`').count() % 2, 0, "{line}");
                assert_eq!(line.trim_end(), line, "{arguments:?}");
            }
            for id in ids {
                assert!(
                    shown.iter().any(|line| line.contains(id)),
                    "{columns} {id} {ran:?}"
                );
            }
        }
    }
    // Without a terminal, a line is as long as it is.
    let ran = house.run(&["list"]).await;
    let table = ran.ends(0);
    assert!(table.lines().any(|line| line.len() > 80), "{table}");
    assert_eq!(table.lines().count(), 5, "{table}");
    let ran = house.run(&["show", ALPHA]).await;
    assert_eq!(ran.ends(0).lines().count(), 2, "{ran:?}");
}

#[tokio::test]
async fn a_long_command_shows_its_progress_on_a_terminal_and_leaves_nothing_of_it() {
    let house = house().await;
    super::trial::fill(&house.app.store, 200).await;
    for (arguments, what) in [
        (&["doctor"][..], "rows checked: "),
        (&["list", "--dead"], "tenants read: "),
        (&["stats"], "rows counted: "),
        (&["verify"], "rows opened: "),
        (&["keys", "reseal", "--dry-run"], "rows counted: "),
        (
            &["copy", "env:SLACK_INSTALLS_URL", "sqlite:copy"],
            "rows copied: ",
        ),
    ] {
        let ran = house.on_terminal(80, &[], arguments).await;
        let out = ran.ends(0);
        assert!(out.contains(what), "{ran:?}");
        for frame in out.split("\u{1b}[2K").filter(|it| it.contains(what)) {
            let frame = frame.trim_end();
            assert!(
                frame.chars().count() <= 80 && frame.ends_with("/s)"),
                "{frame:?}"
            );
            assert!(!frame.contains('.'), "{frame:?}");
        }
        assert!(
            !lines(out).iter().any(|line| line.contains(what)),
            "{ran:?}"
        );
        // Not without a terminal.
        let ran = house.run(arguments).await;
        assert!(
            !ran.err.contains(what) && !ran.out.contains(what),
            "{ran:?}"
        );
        drop(std::fs::remove_file(house.path("copy")));
    }
}

#[tokio::test]
async fn colours_can_be_turned_off() {
    let mut house = house().await;
    trouble(&house).await;
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        house.set(name, Some(value));
        let ran = house.on_terminal(80, &[], &["explain", BRAVO]).await;
        assert!(!ran.ends(0).contains('\u{1b}'), "{ran:?}");
        house.set(name, None);
    }
    let ran = house.on_terminal(80, &[], &["explain", BRAVO]).await;
    assert!(
        ran.ends(0).contains("\u{1b}[31mfailure\u{1b}[0m "),
        "{ran:?}"
    );
}

/// Replaces what differs from run to run: times, numbers, keys, and the ids that the fake chose.
fn normal(text: &str) -> String {
    let text = text
        .replace("Alpha <script>alert(1)</script>", "Alpha")
        .replace("alpha--script-alert-1---script-", "alpha");
    let word = |word: &str| {
        let is_key = word.len() == 32 && word.bytes().all(|it| it.is_ascii_hexdigit());
        if is_key {
            "KEY".to_owned()
        } else if word.starts_with("A0") {
            "APP".to_owned()
        } else {
            word.replace(|it: char| it.is_ascii_digit(), "9")
        }
    };
    let lines = text.trim().lines();
    // The width of a column depends on the longest name.
    let lines = lines.map(|line| {
        line.split_whitespace()
            .map(word)
            .collect::<Vec<_>>()
            .join(" ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the example of this command on the page.
fn example(command: &str) -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/operations.md")).expect("the page");
    let head = format!("```text\n$ slack-installs {command}\n");
    let after = page
        .split(&head)
        .nth(1)
        .unwrap_or_else(|| panic!("{command}"));
    after.split("```").next().expect("an end").to_owned()
}

#[tokio::test]
async fn the_page_for_operators_shows_what_the_program_prints() {
    let mut house = house().await;
    let ran = house.run(&["explain", ALPHA]).await;
    assert_eq!(normal(&example("explain T0ALPHA0001")), normal(ran.ends(0)));
    house.set("SLACK_INSTALLS_SCOPES", None);
    trouble(&house).await;
    let ran = house.run(&["doctor"]).await;
    assert_eq!(normal(&example("doctor")), normal(ran.ends(1)));
    let ran = house.run(&["stats"]).await;
    assert_eq!(normal(&example("stats")), normal(ran.ends(0)));
    let ran = house.run(&["list"]).await;
    assert_eq!(normal(&example("list")), normal(ran.ends(0)));
}
