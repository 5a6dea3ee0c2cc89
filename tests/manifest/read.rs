//! Texts that are no manifests, or hostile ones.

use proptest::prelude::*;
use slack_installs::manifest::{Expected, Grade, check};

use crate::{EXAMPLE, expected, texts};

/// Returns the line of the only finding, which must be an error.
fn only_line(text: &str) -> usize {
    let found = check(text, &expected());
    let [finding] = &found[..] else {
        panic!("{text:?}: {:#?}", texts(&found));
    };
    assert_eq!(finding.grade, Grade::Error);
    finding.line
}

#[test]
fn a_text_that_cannot_be_read_has_one_finding_at_its_line() {
    for (text, line) in [
        ("", 1),
        ("# only a comment\n", 1),
        ("just a text\n", 1),
        ("- a\n- list\n", 1),
        ("settings:\n  a: b: c\n", 2),
        ("settings:\n  a: 'open\n", 2),
        ("settings:\n\ta: 1\n", 2),
        ("a: 1\n---\nb: 2\n", 2),
        ("a: &x [1]\nb: *x\n", 2),
        ("a: 1\nb: *missing\n", 2),
        ("a: 1\n? [list]\n: 2\n", 2),
        ("{\"a\": 1,}", 1),
        ("{\n\"a\": 1\n\"b\": 2\n}", 3),
        ("{\n\"a\": 1\n", 3),
        ("\u{feff}{\n\"a\": 1,}", 2),
    ] {
        assert_eq!(only_line(text), line, "{text:?}");
    }
}

#[test]
fn a_key_that_is_written_twice_is_found_at_its_second_line() {
    let text = EXAMPLE.replace(
        "  socket_mode_enabled: false\n",
        "  socket_mode_enabled: false\n  socket_mode_enabled: false\n",
    );
    assert_eq!(only_line(&text), 46);
    let json = "{\"settings\": {\n\"socket_mode_enabled\": false,\n\"socket_mode_enabled\": true}}";
    let found = check(json, &Expected::default());
    let twice = found.iter().filter(|it| it.reason.contains("twice"));
    let twice: Vec<_> = twice.map(|it| (it.line, &*it.path)).collect();
    assert_eq!(twice, [(3, "settings.socket_mode_enabled")]);
}

#[test]
fn aliases_are_not_followed_so_they_cannot_grow() {
    let mut text = String::from("a0: &a0 [x, x]\n");
    for at in 1..40 {
        text.push_str(&format!("a{at}: &a{at} [*a{}, *a{}]\n", at - 1, at - 1));
    }
    assert_eq!(only_line(&text), 2);
}

#[test]
fn a_text_of_more_than_a_mebibyte_is_refused_and_a_large_one_is_bounded() {
    assert_eq!(only_line(&"x: 1\n".repeat(300_000)), 1);
    let urls = "    - http://a.example.com/\n".repeat(30_000);
    let text = EXAMPLE.replace(
        "    - https://app.example.com/slack/oauth_redirect\n",
        &urls,
    );
    assert_eq!(check(&text, &Expected::default()).len(), 1000);
}

#[test]
fn deep_nesting_is_refused() {
    for text in [
        format!("a: {}", "[".repeat(100_000)),
        format!("a: {}{}", "{a: ".repeat(1000), "}".repeat(1000)),
        "- ".repeat(100_000),
        format!("{{\"a\": {}{}}}", "[".repeat(5000), "]".repeat(5000)),
    ] {
        only_line(&text);
    }
}

#[test]
fn values_of_a_wrong_kind_are_findings_and_not_panics() {
    for value in [
        "1",
        "true",
        "[]",
        "{}",
        "[[1]]",
        "{a: {b: c}}",
        "''",
        "~",
        "!!set {a}",
    ] {
        for key in [
            "display_information",
            "features",
            "oauth_config",
            "settings",
            "app_directory",
        ] {
            let _ = check(&format!("{key}: {value}\n"), &expected());
            let _ = check(
                &format!("{key}: {{scopes: {value}, redirect_urls: {value}}}\n"),
                &expected(),
            );
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_check_panic(text in "[ \\PC\t\n\r{}\\[\\]:,&*!|>'\"%@`#?-]{0,200}") {
        let _ = check(&text, &expected());
    }

    #[test]
    fn no_change_of_a_manifest_makes_the_check_panic(
        at in 0..EXAMPLE.len(),
        length in 0..40_usize,
        by in "[a-z:{}\\[\\]\n&*!#, \"'-]{0,12}",
    ) {
        let to = (at + length).min(EXAMPLE.len());
        let text = format!("{}{by}{}", &EXAMPLE[..at], &EXAMPLE[to..]);
        let lines = text.lines().count().max(1);
        for finding in check(&text, &expected()) {
            prop_assert!((1..=lines + 1).contains(&finding.line), "{finding}: {text:?}");
        }
    }
}
