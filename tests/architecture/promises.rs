//! The page about security names the test of each promise.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const PAGE: &str = "docs/security.md";

#[test]
fn every_test_that_the_security_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join(PAGE)).expect("the page exists");
    let named: BTreeSet<&str> = named(&page).collect();
    assert!(named.len() > 80, "the page names {} tests", named.len());
    let mut code = String::new();
    for folder in ["src", "tests"] {
        read(&root.join(folder), &mut code);
    }
    let is_missing = |name: &&&str| !code.contains(&format!("fn {name}("));
    let missing: Vec<_> = named.iter().filter(is_missing).collect();
    assert!(
        missing.is_empty(),
        "{PAGE} names tests that do not exist: {missing:?}"
    );
}

#[test]
fn every_promise_of_the_security_page_names_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join(PAGE)).expect("the page exists");
    for promises in page.split("They cannot:\n\n").skip(1) {
        let list = promises.split("\n\n").next().expect("a list");
        for promise in list.split("\n* ") {
            assert!(named(promise).next().is_some(), "no test: {promise}");
        }
    }
}

/// Returns the names of tests in a text: code with several underscores.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let is_name = |code: &&str| {
        let of_a_name = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_';
        code.matches('_').count() > 3 && code.chars().all(of_a_name)
    };
    text.split('`').skip(1).step_by(2).filter(is_name)
}

fn read(folder: &Path, code: &mut String) {
    for entry in fs::read_dir(folder).expect("a directory") {
        let path = entry.expect("a directory").path();
        if path.is_dir() && !path.ends_with("target") {
            read(&path, code);
        } else if path.extension().is_some_and(|it| it == "rs") {
            code.push_str(&fs::read_to_string(&path).expect("a file"));
        }
    }
}
