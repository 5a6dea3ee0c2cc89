use super::*;
use crate::keys::connect;

async fn refused(url: &str) -> KeySetupError {
    let refused = connect(url).await;
    refused.map(|_| ()).expect_err("the URL cannot be used")
}

#[tokio::test]
async fn a_scheme_with_a_typing_error_is_refused_with_the_nearest_one() {
    for (url, near) in [
        ("aws-kmz:arn:canary", "`aws-kms:`"),
        ("awskms:arn:canary", "`aws-kms:`"),
        ("key-files:/canary", "`key-file:`"),
        ("keyfile:/canary", "`key-file:`"),
        ("Vault:https://canary", "`vault:`"),
        ("aws-secrets:canary", "`aws-secret:`"),
    ] {
        let text = refused(url).await.to_string();
        assert!(
            text.contains(near) && !text.contains("canary"),
            "{url}: {text}"
        );
    }
}

#[tokio::test]
async fn a_master_key_in_the_place_of_a_url_is_not_shown() {
    let key = "Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5MTI=";
    for url in [
        key,
        "",
        "   ",
        "/run/secrets/canary",
        "https://canary",
        &key.repeat(99),
    ] {
        let refused = refused(url).await;
        assert_eq!(refused.kind(), KeySetupErrorKind::Invalid);
        let text = format!("{refused} {refused:?}");
        assert!(text.contains("SLACK_INSTALLS_MASTER_KEY"), "{text}");
        assert!(
            text.contains("`key-file:`") && text.contains("`vault:`"),
            "{text}"
        );
        assert!(!text.contains("canary") && !text.contains(key), "{text}");
    }
}

#[tokio::test]
async fn a_url_without_a_place_is_refused_with_an_example() {
    for url in [
        "key-file:",
        "key-file",
        "key-fd",
        "key-env:?x=1",
        "key-command:",
    ] {
        let text = refused(url).await.to_string();
        assert!(text.contains("expected for example `key-"), "{url}: {text}");
    }
}

#[tokio::test]
async fn a_provider_that_is_not_compiled_names_its_feature() {
    let forms = [Form {
        scheme: "vault",
        example: "",
        feature: "vault",
        open: None,
    }];
    let refused = by_form(&forms, "vault:https://canary").await;
    let refused = refused
        .map(|_| ())
        .expect_err("the provider is not compiled");
    assert_eq!(refused.kind(), KeySetupErrorKind::FeatureMissing);
    let text = refused.to_string();
    assert!(
        text.contains("the feature `vault`") && !text.contains("canary"),
        "{text}"
    );
}

#[tokio::test]
async fn options_that_a_source_does_not_have_are_refused() {
    for url in [
        "key-file:/nowhere?mode=canary",
        "key-fd:3?canary",
        "key-fd:canary",
        "key-fd:-1",
        "key-env:HOME?canary=1",
        "key-env:A=canary",
        "key-command:/bin/true?args=canary",
        "key-command:/bin/true?timeout=canary",
        "key-command:/bin/true?timeout=0",
        "key-command:/bin/true?timeout=301",
    ] {
        let refused = refused(url).await;
        assert_eq!(
            refused.kind(),
            KeySetupErrorKind::Invalid,
            "{url}: {refused}"
        );
        assert!(!format!("{refused:?}").contains("canary"), "{refused:?}");
    }
}

#[test]
fn the_distance_of_two_words_is_the_number_of_changes() {
    for (one, other, changes) in [
        ("vault", "vault", 0),
        ("valt", "vault", 1),
        ("vualt", "vault", 2),
        ("", "vault", 5),
        ("key-file", "key-fd", 3),
    ] {
        assert_eq!(distance(one, other), changes, "{one} {other}");
    }
}
