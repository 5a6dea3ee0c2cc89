//! `check-manifest` and `manifest`, which need no credentials.

use std::path::Path;

use super::House;

async fn house() -> House {
    let mut house = House::new().await;
    house.values.clear();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = root.join("tests/manifest/example.yaml");
    std::fs::copy(example, house.path("good.yaml")).expect("the directory is ours");
    house
}

#[tokio::test]
async fn a_good_manifest_has_no_finding_and_an_error_ends_with_one() {
    let house = house().await;
    let ran = house.run(&["check-manifest", "good.yaml"]).await;
    assert_eq!(ran.ends(0), "0 errors, 0 warnings\n");
    let text = std::fs::read_to_string(house.path("good.yaml")).expect("a file");
    let text = text.replace(
        "https://app.example.com/slack/events",
        "http://app.example.com/e",
    );
    std::fs::write(house.path("bad.yaml"), text).expect("the directory is ours");
    let ran = house.run(&["check-manifest", "bad.yaml"]).await;
    let out = ran.ends(1);
    assert!(out.ends_with("\n1 error, 0 warnings\n"), "{out}");
    assert!(
        out.contains("error: settings.event_subscriptions.request_url"),
        "{out}"
    );
    let ran = house.run_json(&["check-manifest", "bad.yaml"]).await;
    ran.ends(1);
    let json = ran.json();
    assert!(json["errors"].as_u64() > Some(0), "{json}");
    let finding = &json["findings"][0];
    std::fs::write(house.path("hostile.yaml"), "a: \u{1b}[2J").expect("the directory is ours");
    for ran in [
        house.run(&["check-manifest", "hostile.yaml"]).await,
        house.run_json(&["check-manifest", "hostile.yaml"]).await,
    ] {
        assert!(!ran.ends(1).contains('\u{1b}'), "{ran:?}");
    }
    assert!(
        finding["line"].as_u64() > Some(1) && finding["remedy"].is_string(),
        "{json}"
    );
}

#[tokio::test]
async fn a_manifest_is_compared_with_the_variables_that_are_set_and_no_secret_is_read() {
    let mut house = house().await;
    house.set("SLACK_CLIENT_SECRET_FILE", Some("/does/not/exist"));
    house.set("SLACK_INSTALLS_SCOPES", Some("files:read"));
    let ran = house.run(&["check-manifest", "good.yaml"]).await;
    assert!(ran.ends(1).contains("files:read"), "{ran:?}");
    house.set("SLACK_INSTALLS_SCOPES", None);
    house.set(
        "SLACK_REDIRECT_URI",
        Some("https://other.example.com/slack/oauth_redirect"),
    );
    let ran = house.run(&["check-manifest", "good.yaml"]).await;
    assert!(ran.ends(1).contains("other.example.com"), "{ran:?}");
    house.set("SLACK_REDIRECT_URI", Some("http://x"));
    house.run(&["check-manifest", "good.yaml"]).await.ends(2);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_a_wrong_argument_and_one_that_is_no_manifest_an_error() {
    let house = house().await;
    house.run(&["check-manifest", "none.yaml"]).await.ends(2);
    house.run(&["check-manifest"]).await.ends(2);
    for (name, bytes, code) in [
        ("binary", vec![b'a', 0xff, b'b'], 2),
        ("empty", Vec::new(), 1),
        ("long", "é".repeat(700_000).into_bytes(), 1),
        ("broken", b"a: [".to_vec(), 1),
    ] {
        std::fs::write(house.path(name), bytes).expect("the directory is ours");
        house.run(&["check-manifest", name]).await.ends(code);
    }
}

#[tokio::test]
async fn a_starter_passes_the_check_in_both_forms() {
    let mut house = house().await;
    house.set(
        "SLACK_REDIRECT_URI",
        Some("https://app.example.com/slack/oauth_redirect"),
    );
    house.set("SLACK_INSTALLS_SCOPES", Some("commands,chat:write"));
    let make = [
        "manifest",
        "--name",
        "Standup",
        "--slash-command",
        "/standup",
        "--org-wide",
    ];
    for ran in [house.run(&make).await, house.run_json(&make).await] {
        let text = ran.ends(0);
        assert!(text.contains("/standup"), "{text}");
        std::fs::write(house.path("new"), text).expect("the directory is ours");
        let check = ["check-manifest", "new", "--org-wide"];
        house.run(&check).await.ends(0);
    }
    let ran = house.run(&["check-manifest", "--unlisted", "new"]).await;
    ran.ends(0);
}

#[tokio::test]
async fn a_message_has_the_quotes_of_the_parser_as_they_are_and_no_control_character() {
    let house = house().await;
    for (name, text) in [
        ("flow", "a: [\n"),
        ("anchor", "a: it's: \"x\n"),
        ("tab", "a:\n\t- b\n"),
        ("brace", "{'a': 1}"),
        ("alias", "a: *b\n"),
        (
            "quotes",
            "display_information:\n  name: \"it's \\\\ \u{e9} \\u001b[31m\"\n",
        ),
    ] {
        std::fs::write(house.path(name), text).expect("the directory is ours");
        let ran = house.run(&["check-manifest", name]).await;
        let out = ran.ends(1);
        for escape in ["\\'", "\\\"", "\\\\\\\\"] {
            assert!(!out.contains(escape), "{escape} {ran:?}");
        }
        assert!(!out.replace('\n', "").contains(char::is_control), "{ran:?}");
    }
    let redirect = "oauth_config:\n  redirect_urls: [\"it's \\u202e \\\\ é\"]\n";
    std::fs::write(house.path("url"), redirect).expect("the directory is ours");
    let ran = house.run(&["check-manifest", "url"]).await;
    assert!(
        ran.ends(1).contains("`it's \\u{202e} \\ é` is not a URL"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn a_starter_without_any_value_passes_the_check_and_names_its_placeholders() {
    let mut house = house().await;
    for (command, scope) in [(None, "chat:write"), (Some("/standup"), "commands")] {
        let mut make = vec!["manifest", "--name", "Standup"];
        make.extend(command.iter().flat_map(|it| ["--slash-command", it]));
        for ran in [house.run(&make).await, house.run_json(&make).await] {
            assert!(ran.ends(0).contains(scope), "{ran:?}");
            for name in ["SLACK_INSTALLS_SCOPES", "SLACK_REDIRECT_URI"] {
                assert!(
                    ran.err.contains(&format!("note: {name} is not set")),
                    "{ran:?}"
                );
            }
            std::fs::write(house.path("new"), &ran.out).expect("the directory is ours");
            let checked = house.run(&["check-manifest", "new"]).await;
            assert_eq!(checked.ends(0), "0 errors, 0 warnings\n");
        }
    }
    house.set("SLACK_INSTALLS_USER_SCOPES", Some("users:read"));
    let ran = house.run(&["manifest", "--name", "Standup"]).await;
    assert!(!ran.ends(0).contains("chat:write"), "{ran:?}");
    assert!(!ran.err.contains("SCOPES"), "{ran:?}");
}

#[tokio::test]
async fn a_starter_that_its_own_check_would_refuse_is_not_written_and_names_the_value() {
    let mut house = house().await;
    let long = "x".repeat(36);
    for (arguments, text) in [
        (
            &["--name", ""][..],
            "--name has a wrong value: the text has 0 characters",
        ),
        (
            &["--name", &long],
            "--name has a wrong value: the text has 36 characters",
        ),
        (
            &["--name", "A", "--slash-command", ""],
            "--slash-command has a wrong value: `` is not a slash command",
        ),
        (
            &["--name", "A", "--slash-command", "standup"],
            "--slash-command has a wrong value: `standup` is not a slash command",
        ),
        (
            &["--name", "A", "--slash-command", "/stand up"],
            "`/stand up` is not a slash command",
        ),
    ] {
        let ran = house.run(&[&["manifest"], arguments].concat()).await;
        assert_eq!(ran.ends(2), "");
        assert!(ran.err.contains(text), "{ran:?}");
    }
    for (name, value) in [
        ("SLACK_INSTALLS_SCOPES", "openid,chat:write"),
        ("SLACK_INSTALLS_USER_SCOPES", "openid,chat:write"),
        ("SLACK_REDIRECT_URI", "http://127.0.0.1/callback"),
    ] {
        house.set(name, Some(value));
        let ran = house.run(&["manifest", "--name", "A"]).await;
        assert_eq!(ran.ends(2), "", "{name}");
        let text = format!("{name} has a wrong value: ");
        assert!(ran.err.contains(&text), "{ran:?}");
        house.set(name, None);
    }
}
