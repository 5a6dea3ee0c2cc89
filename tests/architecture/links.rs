//! Every relative link of the guides leads to a file, and to a heading in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The pages at the root. All pages of `docs` are read too.
const PAGES: [&str; 3] = ["CHANGELOG.md", "README.md", "SECURITY.md"];

#[test]
fn every_relative_link_of_the_guides_leads_to_a_file_and_a_heading() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages: BTreeMap<PathBuf, String> = BTreeMap::new();
    let docs = fs::read_dir(root.join("docs")).expect("the folder exists");
    let docs = docs.map(|entry| entry.expect("an entry").path());
    for path in docs.chain(PAGES.map(|page| root.join(page))) {
        if path.extension().is_some_and(|it| it == "md") {
            let text = fs::read_to_string(&path).expect("a page");
            pages.insert(path, text);
        }
    }
    let broken = broken(&pages, |path| path.exists());
    assert!(broken.is_empty(), "links that lead nowhere: {broken:#?}");
}

#[test]
fn every_guide_is_in_the_list_of_guides() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let list = fs::read_to_string(docs.join("README.md")).expect("the list");
    let listed: BTreeSet<_> = links(&list).collect();
    for entry in fs::read_dir(&docs).expect("the folder exists") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_string_lossy();
        let is_page = name.ends_with(".md") && name != "README.md";
        assert!(
            !is_page || listed.contains(&*name),
            "docs/README.md lacks {name}"
        );
    }
}

#[test]
fn a_link_to_a_file_or_a_heading_that_does_not_exist_is_found() {
    let page = "# One `two`: three\n[a](b.md) [b](b.md#x-y) [c](#one-two-three) [d](http://e)\n\
                ```\n# No heading\n[f](gone.md)\n```\n`[g](gone.md)` [h](gone.md) [i](b.md#no)\n\
                [j](#no-heading) [k](../c/b.md)";
    let pages = BTreeMap::from([
        (PathBuf::from("/c/a.md"), page.to_owned()),
        (PathBuf::from("/c/b.md"), "## X, *y*".to_owned()),
    ]);
    let found = broken(&pages, |path| path == Path::new("/c/b.md"));
    let targets: Vec<_> = found.iter().map(|(_, target)| target.as_str()).collect();
    assert_eq!(targets, ["gone.md", "b.md#no", "#no-heading"]);
}

/// Returns each page with the target of a link that leads nowhere.
fn broken(
    pages: &BTreeMap<PathBuf, String>,
    exists: impl Fn(&Path) -> bool,
) -> Vec<(PathBuf, String)> {
    let mut broken = Vec::new();
    for (page, text) in pages {
        for target in links(text) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let folder = page.parent().expect("a folder");
            let file = if file.is_empty() {
                page.clone()
            } else {
                plain(&folder.join(file))
            };
            let has_heading = |text: &String| headings(text).any(|it| it == heading);
            let is_found = match pages.get(&file) {
                Some(text) => heading.is_empty() || has_heading(text),
                None => heading.is_empty() && exists(&file),
            };
            if !is_found {
                broken.push((page.clone(), target.to_owned()));
            }
        }
    }
    broken
}

/// Returns the path without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}

/// Returns the lines of a page that are not in a block of code.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    page.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// Returns the targets of the relative links.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = prose(page).flat_map(|line| {
        let links = line.match_indices("](").filter(|(at, _)| {
            // Not in code.
            line[..*at].matches('`').count() % 2 == 0
        });
        links.filter_map(|(at, _)| line[at + 2..].split(')').next())
    });
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
}

/// Returns the anchors of the headings, as GitHub makes them.
fn headings(page: &str) -> impl Iterator<Item = String> {
    let headings = prose(page).filter(|line| line.starts_with('#'));
    headings.map(|line| {
        let text = line.trim_start_matches('#').trim().to_lowercase();
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let anchor = text.chars().filter(kept);
        anchor.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}
