//! Tests of an app that starts from its environment.

use std::ffi::OsString;
use std::time::Duration;

use super::SlackAppBuilder;
use super::env::{
    CLIENT_ID, CLIENT_SECRET, KEYS, MASTER_KEY, MASTER_KEY_FILE, OLD_CLIENT_SECRET, REDIRECT_URI,
    SIGNING_SECRET, URL, read,
};
use crate::seal::MasterKey;

const GOOD: [(&str, &str); 6] = [
    (CLIENT_ID, "100000000001.200000000002"),
    (CLIENT_SECRET, "8f742231b10e8888abcd99yyyzzz85a5"),
    (SIGNING_SECRET, "5a58zzzyyy99dcba8888e01b132247f8"),
    (REDIRECT_URI, "https://bot.example.com/slack/oauth_redirect"),
    (URL, "memory:"),
    (MASTER_KEY, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
];

fn good(name: &str) -> Option<OsString> {
    let set = GOOD.iter().find(|(known, _)| *known == name);
    set.map(|(_, value)| value.into())
}

fn started(variable: impl Fn(&str) -> Option<OsString>) -> SlackAppBuilder {
    SlackAppBuilder::of(read(variable)).scopes("chat:write")
}

fn with(changed: &str, value: Option<&str>) -> SlackAppBuilder {
    started(|name| {
        if name == changed {
            value.map(Into::into)
        } else {
            good(name)
        }
    })
}

#[tokio::test]
async fn an_app_starts_from_its_variables() {
    with("", None).build().await.expect("every variable is set");
}

#[tokio::test]
async fn a_refresh_threshold_is_checked_at_the_start_and_reaches_the_rotator() {
    let hour = Duration::from_secs(3_600);
    let app = with("", None).refresh_before_expiry(hour).build().await;
    let rotator = &app.expect("within the bounds").0.rotator;
    assert_eq!(rotator.threshold().as_duration(), hour);
    for (wrong, bound) in [(599, "at least 10 minutes"), (14_401, "at most 4 hours")] {
        let builder = with("", None).refresh_before_expiry(Duration::from_secs(wrong));
        let error = builder.build().await.expect_err("out of bounds");
        let text = format!("{error:?}");
        assert!(text.contains("refresh_before_expiry"), "{text}");
        assert!(text.contains(bound) && text.contains("because"), "{text}");
    }
}

#[tokio::test]
async fn the_old_client_secret_is_optional_and_belongs_to_the_same_app() {
    let app = with("", None).build().await.expect("it is not needed");
    let none = app
        .0
        .slack
        .old_credentials(&app.0.provider.config().credentials);
    assert!(none.is_none());
    let app = with(OLD_CLIENT_SECRET, Some("5a58zzzyyy99dcba8888e01b132247f8"));
    let app = app.build().await.expect("a secret");
    let config = app.0.provider.config();
    let old = app
        .0
        .slack
        .old_credentials(&config.credentials)
        .expect("set");
    assert_eq!(old.client_id, config.credentials.client_id);
    assert_eq!(
        old.client_secret.expose(),
        "5a58zzzyyy99dcba8888e01b132247f8"
    );
}

#[tokio::test]
async fn what_is_not_set_is_named_with_the_place_to_find_it() {
    for (name, _) in GOOD {
        for value in [None, Some("")] {
            let error = with(name, value)
                .build()
                .await
                .expect_err("a variable is missing");
            let text = format!("{error:?}");
            assert!(text.starts_with(&format!("{name} is not set: ")), "{text}");
            assert_eq!(text, error.to_string());
        }
    }
}

#[tokio::test]
async fn a_wrong_value_is_named_with_the_cause_and_never_shown_if_it_is_secret() {
    for (name, value, expected) in [
        (
            CLIENT_ID,
            "8f742231b10e8888abcd99yyyzzz85a5",
            "SLACK_CLIENT_ID is `8f74…`: expected two numbers joined by a dot",
        ),
        (CLIENT_ID, "1.", "SLACK_CLIENT_ID is `1.…`"),
        (CLIENT_ID, ".1", "SLACK_CLIENT_ID is `.1…`"),
        (CLIENT_ID, "1.a", "SLACK_CLIENT_ID is `1.a…`"),
        (
            CLIENT_SECRET,
            "a canary",
            "SLACK_CLIENT_SECRET has a wrong value: not a client secret",
        ),
        (
            OLD_CLIENT_SECRET,
            "a canary",
            "SLACK_OLD_CLIENT_SECRET has a wrong value: not a client secret",
        ),
        (
            SIGNING_SECRET,
            "a canary",
            "SLACK_SIGNING_SECRET has a wrong value: not a signing secret",
        ),
        (
            REDIRECT_URI,
            "http://bot.example.com/slack/oauth_redirect",
            "SLACK_REDIRECT_URI is \"http://bot.example.com/slack/oauth_redirect\": not a \
             redirect URL",
        ),
        (
            REDIRECT_URI,
            "https://bot:canary@bot.example.com/callback",
            "SLACK_REDIRECT_URI is `http…`: not a redirect URL",
        ),
        (
            REDIRECT_URI,
            "8f742231b10e8888abcd99yyyzzz85a5",
            "SLACK_REDIRECT_URI is `8f74…`: not a redirect URL",
        ),
        (
            URL,
            "mysql://root:canary@host",
            "the app's database cannot be used: not a database URL",
        ),
        (
            MASTER_KEY,
            "canary",
            "SLACK_INSTALLS_MASTER_KEY has a wrong value: the master key must be 32",
        ),
    ] {
        let error = with(name, Some(value))
            .build()
            .await
            .expect_err("the value is wrong");
        let text = format!("{error:?}");
        assert!(text.starts_with(expected), "{text}");
        assert!(!text.contains("canary") && !text.contains("b10e"), "{text}");
    }
}

#[tokio::test]
async fn the_key_of_a_file_serves_if_the_variable_is_not_set() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), GOOD[5].1).expect("the file is writable");
    let path = file.path().as_os_str();
    let from = |path: OsString| {
        started(|name| match name {
            MASTER_KEY => None,
            MASTER_KEY_FILE => Some(path.clone()),
            name => good(name),
        })
    };
    from(path.into())
        .build()
        .await
        .expect("the file has the key");
    let error = from("/nowhere".into())
        .build()
        .await
        .expect_err("the file does not exist");
    let text = format!("{error:?}");
    let expected = "SLACK_INSTALLS_MASTER_KEY_FILE has a wrong value: the master key's file";
    assert!(text.starts_with(expected), "{text}");
}

#[tokio::test]
async fn a_method_of_the_builder_replaces_a_wrong_variable() {
    with(REDIRECT_URI, Some("nonsense"))
        .redirect_uri("https://bot.example.com/callback")
        .build()
        .await
        .expect("the method replaces the variable");
}

#[tokio::test]
async fn the_key_provider_of_a_url_serves() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let lines = format!("{}\n{}", "22".repeat(32), "11".repeat(32));
    std::fs::write(file.path(), lines).expect("the file is writable");
    let url = format!("key-file:{}", file.path().display());
    let from = |name: &str| match name {
        MASTER_KEY => None,
        KEYS => Some(OsString::from(&url)),
        name => good(name),
    };
    started(from).build().await.expect("the URL has the key");
    let set_by_method = started(|name| good(name).filter(|_| name != MASTER_KEY));
    set_by_method
        .keys(&url)
        .build()
        .await
        .expect("the method sets the URL");
}

#[tokio::test]
async fn a_wrong_key_url_is_named_and_not_shown() {
    let from = |name: &str| match name {
        MASTER_KEY => None,
        KEYS => Some(OsString::from("aws-kmz:canary")),
        name => good(name),
    };
    let refused = started(from)
        .build()
        .await
        .expect_err("the scheme is wrong");
    let text = format!("{refused:?}");
    let expected = "SLACK_INSTALLS_KEYS has a wrong value: not a key URL: did you mean `aws-kms:`?";
    assert!(
        text.starts_with(expected) && !text.contains("canary"),
        "{text}"
    );
}

#[tokio::test]
async fn two_variables_for_the_key_provider_are_refused() {
    let all = [KEYS, MASTER_KEY, MASTER_KEY_FILE];
    for unset in all {
        let from = |name: &str| match name {
            name if name == unset => None,
            KEYS | MASTER_KEY_FILE => Some("key-file:/canary".into()),
            name => good(name),
        };
        let refused = started(from).build().await.expect_err("two are set");
        let text = format!("{refused:?}");
        for name in all {
            let is_named = text.split_whitespace().any(|word| word == name);
            assert_eq!(is_named, name != unset, "{text}");
        }
        assert!(
            text.contains("are both set") && !text.contains("canary"),
            "{text}"
        );
    }
    let from = |name: &str| match name {
        KEYS | MASTER_KEY_FILE => Some("canary".into()),
        name => good(name),
    };
    let replaced = started(from).master_key(MasterKey::generate());
    replaced
        .build()
        .await
        .expect("the method replaces the variables");
}
