//! Where the program reads the app's values.

use super::House;
use crate::support::app::{ADA, ALPHA};

#[tokio::test]
async fn a_value_comes_from_a_file_a_program_a_descriptor_or_the_configuration() {
    let mut house = House::new().await;
    house.install(ADA).await;
    let url = house.values["SLACK_INSTALLS_URL"].clone();
    std::fs::write(house.path("url"), format!("{url}\n")).expect("the directory is ours");
    house.set("SLACK_INSTALLS_URL", None);
    house.run(&["stats"]).await.ends(2);
    house.set("SLACK_INSTALLS_URL_FILE", Some("url"));
    house.run(&["stats"]).await.ends(0);
    // Two places are a mistake.
    house.set("SLACK_INSTALLS_URL_COMMAND", Some("cat url"));
    let ran = house.run(&["stats"]).await;
    ran.ends(2);
    assert!(ran.err.contains("given twice"), "{ran:?}");
    house.set("SLACK_INSTALLS_URL_FILE", None);
    house.run(&["stats"]).await.ends(0);
    house.set("SLACK_INSTALLS_URL_COMMAND", Some("false"));
    house.run(&["stats"]).await.ends(2);
    house.set("SLACK_INSTALLS_URL_COMMAND", None);
    for place in ["file:url", &url] {
        house.run(&["stats", "--database", place]).await.ends(0);
    }

    let values = std::mem::take(&mut house.values);
    let mut text = format!("# comment\n\nexport SLACK_INSTALLS_URL=\"{url}\"\n");
    for (name, value) in values {
        text.push_str(&format!("{name}={value}\n"));
    }
    std::fs::write(house.path("conf"), &text).expect("the directory is ours");
    let explain = ["explain", ALPHA, "--config", "conf"];
    house.run(&explain).await.ends(0);
    // The environment has precedence.
    house.set("SLACK_INSTALLS_URL", Some("sqlite:other"));
    house.run(&explain).await.ends(5);
    house.set("SLACK_INSTALLS_URL", None);
    for (wrong, why) in [
        ("SLACK_CLIENT=1", "the name is unknown"),
        ("SLACK_CLIENT_ID", "expected NAME=value"),
        ("SLACK_URL=https://a\nSLACK_URL=https://b", "set twice"),
    ] {
        let text: String = text
            .lines()
            .filter(|line| !line.starts_with("SLACK_URL"))
            .flat_map(|line| [line, "\n"])
            .collect();
        std::fs::write(house.path("conf"), format!("{text}{wrong}\n")).expect("ours");
        let ran = house.run(&explain).await;
        ran.ends(2);
        assert!(ran.err.contains(why), "{ran:?}");
    }
}

#[tokio::test]
async fn a_missing_or_wrong_value_is_usage_and_the_text_has_the_remedy() {
    let mut house = House::new().await;
    for (name, value, part) in [
        ("SLACK_CLIENT_ID", None, "SLACK_CLIENT_ID is not set"),
        ("SLACK_CLIENT_ID", Some("1"), "two numbers joined by a dot"),
        ("SLACK_URL", Some("http://h"), "use https"),
        ("SLACK_INSTALLS_KEYS", Some("key-file:key"), "are both set"),
    ] {
        let old = house.values.get(name).cloned();
        house.set(name, value);
        let ran = house.run(&["refresh", ALPHA, "--yes"]).await;
        if name == "SLACK_URL" {
            let ran = house.run(&["doctor"]).await;
            ran.ends(2);
            assert!(ran.err.contains(part), "{ran:?}");
        } else {
            ran.ends(2);
            assert!(ran.err.contains(part), "{ran:?}");
        }
        house.set(name, old.as_deref());
    }
    house.set("SLACK_INSTALLS_MASTER_KEY_FILE", Some("no-such-file"));
    house.run(&["stats"]).await.ends(6);
}

#[tokio::test]
async fn output_has_no_colours_without_a_terminal_and_arguments_that_are_wrong_are_usage() {
    let house = House::new().await;
    let ran = house.run(&["doctor"]).await;
    assert!(!ran.out.contains('\u{1b}'), "{ran:?}");
    for arguments in [
        &["no-such-command"][..],
        &[],
        &["explain"],
        &["list", "--expiring", "x"],
        &["stats", "--format", "xml"],
    ] {
        house.run(arguments).await.ends(2);
    }
    house.run(&["--help"]).await.ends(0);
    house.run(&["--version"]).await.ends(0);
}
