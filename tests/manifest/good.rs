//! Good manifests have no finding.

use slack_installs::manifest::{Distribution, Expected, check};

use crate::{EXAMPLE, expected, redirect_url, texts};

const MARKETPLACE: &str =
    include_str!("../fixtures/manifests/app_manifest__marketplace_rotating_org.json");
const PKCE: &str = include_str!("../fixtures/manifests/app_manifest__pkce_public_client.json");

#[test]
fn good_manifests_are_silent() {
    let none = Expected::default();
    for (name, text) in [
        ("example", EXAMPLE),
        ("marketplace", MARKETPLACE),
        ("pkce", PKCE),
    ] {
        let found = check(text, &none);
        assert!(found.is_empty(), "{name}: {:#?}", texts(&found));
    }
}

#[test]
fn a_manifest_that_agrees_with_the_apps_configuration_is_silent() {
    let found = check(EXAMPLE, &expected());
    assert!(found.is_empty(), "{:#?}", texts(&found));
    let of_the_sample = Expected {
        redirect_urls: vec![redirect_url("https://app.example.com/slack/oauth_redirect")],
        scopes: Some(
            "app_mentions:read,channels:read,chat:write,commands,team:read,users:read".into(),
        ),
        user_scopes: Some("chat:write,search:read.public".into()),
        ..expected()
    };
    let found = check(MARKETPLACE, &of_the_sample);
    assert!(found.is_empty(), "{:#?}", texts(&found));
}

#[test]
fn a_sub_path_of_a_listed_redirect_url_is_accepted_as_slack_does() {
    let text = EXAMPLE.replace(
        "- https://app.example.com/slack/oauth_redirect",
        "- https://app.example.com/slack",
    );
    let found = check(&text, &expected());
    assert!(found.is_empty(), "{:#?}", texts(&found));
    let text = EXAMPLE.replace("slack/oauth_redirect", "slack/oauth");
    assert_eq!(
        check(&text, &expected()).len(),
        1,
        "`/oauth_redirect` is not below `/oauth`"
    );
}

#[test]
fn line_ends_a_byte_order_mark_and_the_form_make_no_difference() {
    let windows = EXAMPLE.replace('\n', "\r\n");
    let marked = format!("\u{feff}{windows}");
    let tabs = MARKETPLACE.replace("  ", "\t");
    for text in [windows, marked, tabs] {
        let found = check(&text, &Expected::default());
        assert!(found.is_empty(), "{:#?}", texts(&found));
    }
    let broken = EXAMPLE.replace("socket_mode_enabled: false", "socket_mode_enabled: true");
    let lines = [
        broken.clone(),
        broken.replace('\n', "\r\n"),
        broken.replace('\n', "\r"),
    ]
    .map(|text| check(&text, &Expected::default())[0].line);
    assert_eq!(lines, [45; 3]);
}

#[test]
fn socket_mode_is_accepted_outside_the_marketplace() {
    let text = EXAMPLE.replace("socket_mode_enabled: false", "socket_mode_enabled: true");
    let unlisted = Expected {
        distribution: Distribution::Unlisted,
        ..Expected::default()
    };
    assert!(check(&text, &unlisted).is_empty());
    assert_eq!(check(&text, &Expected::default()).len(), 1);
}

#[test]
fn the_manifest_of_the_guide_is_good() {
    let guide = include_str!("../../docs/getting-started.md");
    let manifest = guide.split("```yaml\n").nth(1).expect("a manifest");
    let manifest = manifest.split("```").next().expect("its end");
    let own = Expected {
        redirect_urls: vec![redirect_url("https://bot.example.com/slack/oauth_redirect")],
        scopes: Some("commands".into()),
        user_scopes: Some("".into()),
        ..Expected::default()
    };
    let found = check(manifest, &own);
    assert!(found.is_empty(), "{:#?}", texts(&found));
}

#[test]
fn unknown_keys_are_ignored() {
    let text = format!("{EXAMPLE}outgoing_domains: []\nmcp_servers: {{a: {{url: b}}}}\n");
    assert!(check(&text, &expected()).is_empty());
}
