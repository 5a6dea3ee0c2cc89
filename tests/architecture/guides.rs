//! A guide names the dependencies of its code, so that a reader has to guess none.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_guide_names_the_crates_that_its_code_uses() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut count = 0;
    for entry in fs::read_dir(docs).expect("the folder exists") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        let text = fs::read_to_string(&path).expect("a page");
        if !text.contains("```rust") {
            continue;
        }
        count += 1;
        let named = names(&text);
        let used = uses(&text);
        let missing: Vec<_> = used.difference(&named).collect();
        assert!(missing.is_empty(), "{name} does not name {missing:?}");
        let lists_crate = named.contains("slack_installs");
        assert!(lists_crate, "{name} does not say which features it needs");
    }
    assert!(count > 7, "the guides were found");
}

#[test]
fn a_crate_that_a_guide_does_not_name_is_found() {
    let page = "```toml\n[dependencies]\nslack-installs = \"0.1\"\n```\n```rust\nuse url::Url;\n\
                fn a(_: http::Uri, _: std::time::Duration) {}\n#[tokio::main]\n```";
    let unnamed = BTreeSet::from(["http", "tokio", "url"].map(str::to_owned));
    assert_eq!(&uses(page) - &names(page), unnamed);
}

/// Returns the crates that the page lists as dependencies.
fn names(page: &str) -> BTreeSet<String> {
    let lines = blocks(page, "toml").flat_map(str::lines);
    let names = lines.filter_map(|line| line.split_once(" = "));
    names.map(|(name, _)| name.replace('-', "_")).collect()
}

/// Returns the crates that begin a path in the page's code.
fn uses(page: &str) -> BTreeSet<String> {
    let mut uses = BTreeSet::new();
    for block in blocks(page, "rust") {
        for line in block.lines().filter(|line| !line.trim().starts_with("//")) {
            for (at, _) in line.match_indices("::") {
                let begin = line[..at].rfind(|it: char| !it.is_alphanumeric() && it != '_');
                let name = &line[begin.map_or(0, |begin| begin + 1)..at];
                let is_first = !line[..at - name.len()].ends_with("::");
                uses.extend(is_first.then(|| name.to_owned()));
            }
        }
    }
    // Modules of crates that the code imports are no crates, and neither are types.
    let known = CRATES.map(str::to_owned);
    uses.retain(|name| known.contains(name));
    uses
}

/// The crates that the guides may use.
const CRATES: [&str; 14] = [
    "async_trait",
    "axum",
    "bytes",
    "futures_util",
    "http",
    "metrics_exporter_prometheus",
    "serde",
    "serde_json",
    "slack_installs",
    "tokio",
    "tower",
    "tracing",
    "tracing_subscriber",
    "url",
];

/// Returns the blocks of code in this language.
fn blocks<'a>(page: &'a str, language: &str) -> impl Iterator<Item = &'a str> {
    let begins = page.split("```").skip(1).step_by(2);
    let language = language.to_owned();
    begins.filter(move |block| block.starts_with(&language))
}
