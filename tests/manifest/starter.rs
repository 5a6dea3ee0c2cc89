//! The starter manifest passes the check.

use slack_installs::manifest::{Expected, Starter, check};

use crate::{expected, redirect_url, texts};

#[test]
fn the_starter_passes_the_check_in_both_forms() {
    let one_scope = Expected {
        redirect_urls: vec![redirect_url("https://bot.example.com/slack/oauth_redirect")],
        scopes: Some("chat:write".into()),
        user_scopes: Some("".into()),
        ..Expected::default()
    };
    let user_only = Expected {
        scopes: Some("".into()),
        user_scopes: Some("chat:write".into()),
        is_pkce_app: Some(true),
        ..one_scope.clone()
    };
    let everything = Expected {
        redirect_urls: vec![
            redirect_url("https://bot.example.com/slack/oauth_redirect"),
            redirect_url("https://eu.example.com/slack/oauth_redirect"),
        ],
        ..expected()
    };
    let unknown = Expected {
        scopes: Some("commands".into()),
        ..Expected::default()
    };
    // Nothing is known, so all is placeholders.
    let nothing = Expected::default();
    for expected in [one_scope, user_only, everything, unknown, nothing] {
        for name in ["Standup", "A \"name\": # with\nsigns", "1", "true", "ünï"] {
            let starter = Starter::new(name, &expected);
            for text in [starter.to_yaml(), starter.to_json()] {
                let found = check(&text, &expected);
                assert!(found.is_empty(), "{text}{:#?}", texts(&found));
            }
        }
    }
}

#[test]
fn a_starter_with_a_command_and_no_scope_requests_the_scope_of_commands() {
    let starter = Starter::new("Standup", &Expected::default()).with_command("/standup");
    for text in [starter.to_yaml(), starter.to_json()] {
        assert!(!text.contains("chat:write"), "{text}");
        let found = check(&text, &Expected::default());
        assert!(found.is_empty(), "{text}{:#?}", texts(&found));
    }
}

#[test]
fn the_starter_has_the_apps_values_and_its_paths() {
    let starter = Starter::new("Standup", &expected())
        .with_command("/standup")
        .with_commands_path("/c")
        .with_events_path("/e");
    let text: serde_json::Value = serde_json::from_str(&starter.to_json()).expect("JSON");
    let value = |pointer: &str| text.pointer(pointer).cloned().unwrap_or_default();
    let command = &value("/features/slash_commands/0");
    assert_eq!(command["command"], "/standup");
    assert_eq!(command["url"], "https://app.example.com/c");
    assert_eq!(
        value("/settings/event_subscriptions/request_url"),
        "https://app.example.com/e"
    );
    assert_eq!(value("/settings/org_deploy_enabled"), true);
    assert_eq!(value("/settings/token_rotation_enabled"), true);
    let events = value("/settings/event_subscriptions/bot_events");
    assert_eq!(events.as_array().map(Vec::len), Some(5));
}
