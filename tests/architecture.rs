//! Which module may import which, checked in the source. `docs/architecture.md` explains why.
//!
//! A backend never knows what a token is, and only `encrypted` knows both storage and Slack. So a
//! new database is one file, and no plaintext bypasses the seal.

use std::collections::BTreeSet;

#[path = "architecture/circles.rs"]
mod circles;
#[path = "architecture/guides.rs"]
mod guides;
#[path = "architecture/links.rs"]
mod links;
#[path = "architecture/log_events.rs"]
mod log_events;
#[path = "architecture/paths.rs"]
mod paths;
#[path = "architecture/promises.rs"]
mod promises;
#[path = "architecture/source.rs"]
mod source;

use circles::circles;
use paths::paths;
use source::{Source, plain, sources, without_tests};

/// Each module, and the modules of this crate that it may import. The web adapters (axum, tower)
/// import the flows, the flows import the ports, and the ports import the facts.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("panics", &[]),
    ("aws", &[]),
    ("error_chain", &[]),
    ("edit", &[]),
    ("flight", &[]),
    ("forward", &[]),
    (
        "fuzz",
        &["backend", "encrypted", "oauth", "request", "seal", "slack"],
    ),
    ("html", &[]),
    ("https", &["tls", "wipe"]),
    ("log_limit", &[]),
    ("lru", &[]),
    (
        "audit",
        &[
            "clock",
            "error_chain",
            "metrics",
            "random",
            "seal",
            "store",
            "tenant",
        ],
    ),
    ("metrics", &[]),
    ("clock", &[]),
    ("debug", &[]),
    ("random", &[]),
    ("secret", &[]),
    ("span", &[]),
    ("tenant", &[]),
    ("tls", &[]),
    ("wipe", &[]),
    ("wording", &[]),
    ("installation", &["secret", "tenant"]),
    (
        "store",
        &["clock", "forward", "installation", "secret", "tenant"],
    ),
    (
        "slack",
        &[
            "clock",
            "error_chain",
            "https",
            "installation",
            "secret",
            "tenant",
            "wipe",
        ],
    ),
    ("seal", &["edit", "forward", "lru", "random", "wording"]),
    (
        "keys",
        &[
            "aws",
            "error_chain",
            "https",
            "random",
            "seal",
            "wipe",
            "wording",
        ],
    ),
    (
        "backend",
        &[
            "aws",
            "error_chain",
            "forward",
            "random",
            "seal",
            "tls",
            "wording",
        ],
    ),
    (
        "encrypted",
        &[
            "backend",
            "error_chain",
            "flight",
            "clock",
            "installation",
            "lru",
            "metrics",
            "random",
            "seal",
            "secret",
            "span",
            "store",
            "tenant",
        ],
    ),
    ("request", &["clock", "secret", "tenant"]),
    (
        "oauth",
        &[
            "metrics",
            "panics",
            "error_chain",
            "flight",
            "clock",
            "edit",
            "forward",
            "html",
            "installation",
            "log_limit",
            "random",
            "secret",
            "slack",
            "span",
            "store",
            "tenant",
        ],
    ),
    ("manifest", &["installation", "oauth", "slack", "wording"]),
    (
        "rotation",
        &[
            "error_chain",
            "flight",
            "clock",
            "installation",
            "log_limit",
            "lru",
            "metrics",
            "random",
            "secret",
            "slack",
            "span",
            "store",
            "tenant",
        ],
    ),
    (
        "authorize",
        &[
            "error_chain",
            "clock",
            "installation",
            "request",
            "rotation",
            "secret",
            "span",
            "store",
            "tenant",
        ],
    ),
    (
        "events",
        &[
            "panics",
            "error_chain",
            "clock",
            "forward",
            "installation",
            "metrics",
            "request",
            "secret",
            "slack",
            "span",
            "store",
            "tenant",
        ],
    ),
    (
        "operate",
        &[
            "error_chain",
            "clock",
            "events",
            "installation",
            "lru",
            "rotation",
            "slack",
            "store",
            "tenant",
        ],
    ),
    (
        "inspect",
        &[
            "audit",
            "backend",
            "clock",
            "encrypted",
            "error_chain",
            "installation",
            "slack",
            "store",
            "tenant",
            "wording",
        ],
    ),
    (
        "replay",
        &["clock", "error_chain", "installation", "request", "store"],
    ),
    (
        "gate",
        &[
            "authorize",
            "error_chain",
            "events",
            "installation",
            "metrics",
            "replay",
            "request",
            "rotation",
        ],
    ),
    (
        "layer",
        &[
            "authorize",
            "events",
            "gate",
            "log_limit",
            "metrics",
            "replay",
            "request",
        ],
    ),
    ("web", &["authorize", "gate", "oauth", "request", "secret"]),
    (
        "app",
        &[
            "audit",
            "authorize",
            "web",
            "backend",
            "error_chain",
            "clock",
            "encrypted",
            "events",
            "gate",
            "inspect",
            "installation",
            "keys",
            "metrics",
            "oauth",
            "operate",
            "replay",
            "request",
            "rotation",
            "seal",
            "secret",
            "slack",
            "store",
            "tenant",
            "layer",
            "wording",
        ],
    ),
    (
        "prelude",
        &[
            "app",
            "authorize",
            "web",
            "events",
            "installation",
            "oauth",
            "store",
            "tenant",
        ],
    ),
    (
        "testing",
        &[
            "backend",
            "clock",
            "html",
            "installation",
            "random",
            "secret",
            "slack",
            "tenant",
        ],
    ),
];

/// Otherwise a cache would not notice the commit. The keyring and the target of a copy have no
/// cache.
#[test]
fn every_commit_of_the_store_goes_through_the_driver() {
    let mut commits = Vec::new();
    for source in sources() {
        let (path, code) = (&source.path, &source.code);
        if source.module() == "encrypted" {
            let name = path.file_name().expect("a file").to_string_lossy();
            for (at, _) in code.match_indices(".commit(") {
                let whose: String = code[..at]
                    .trim_end()
                    .chars()
                    .rev()
                    .take_while(|it| it.is_alphanumeric() || *it == '_')
                    .collect();
                let whose: String = whose.chars().rev().collect();
                commits.push(format!("{name}: {whose}"));
            }
            let calls = code.matches("commit(&*self.backend").count();
            commits.extend(vec![format!("{name}: commit(self.backend)"); calls]);
        }
    }
    commits.retain(|commit| !commit.starts_with("moving.rs: target"));
    commits.sort();
    let known = [
        "change.rs: commit(self.backend)",
        "commit.rs: backend",
        "commit.rs: backend",
        "driver.rs: backend",
        "driver.rs: commit(self.backend)",
        "driver.rs: self",
        "driver.rs: self",
        "driver.rs: self",
        "processes.rs: backend",
        "processes.rs: backend",
    ];
    assert_eq!(
        commits, known,
        "`Driver::commit` alone commits to the driver's backend"
    );
}

/// Returns what the modules of the crate import from each other.
fn imports(source: &Source) -> BTreeSet<String> {
    let paths = paths(&source.code, |name| name == "crate").into_iter();
    let modules = paths.filter_map(|path| path.into_iter().nth(1));
    modules.filter(|it| it != source.module()).collect()
}

#[test]
fn every_module_imports_only_what_its_layer_may() {
    for source in sources() {
        let (path, module) = (source.path.display(), source.module());
        let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == module);
        let (_, allowed) = allowed
            .unwrap_or_else(|| panic!("{path}: `{module}` has no entry in MAY_IMPORT; add one"));
        for import in imports(&source) {
            let is_allowed = allowed.contains(&import.as_str());
            assert!(is_allowed, "{path}: `{module}` may not import `{import}`");
        }
        let is_far = source.code.contains("super::super");
        assert!(!is_far, "{path}: say `crate::…`");
    }
}

#[test]
fn every_import_that_a_layer_may_make_is_made() {
    let sources = sources();
    let mut unused = Vec::new();
    for (module, allowed) in MAY_IMPORT {
        let files = sources.iter().filter(|source| source.module() == *module);
        let used: BTreeSet<_> = files.flat_map(imports).collect();
        let others = allowed.iter().filter(|it| !used.contains(**it));
        unused.extend(others.map(|other| format!("{module} -> {other}")));
    }
    assert!(
        unused.is_empty(),
        "no module uses these permitted imports: {unused:?}"
    );
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let sources = sources();
    let is_explained = |file: &String| {
        let mut explained = sources
            .iter()
            .filter(|it| it.head.contains("import circle"));
        explained.any(|source| source.path == *file)
    };
    let mut found = circles(&sources);
    found.retain(|circle| !circle.iter().any(is_explained));
    assert!(
        found.is_empty(),
        "{found:?}: remove the circle, or say why in the comment at the top of a file"
    );
}

#[test]
fn a_file_in_a_circle_is_found_and_one_that_uses_the_module_around_it_is_not() {
    let file = |path: &str, code: &str| Source::new(path.into(), code);
    let chain = [
        file("a.rs", "use b::C; mod b;"),
        file("a/b.rs", "use super::D; use crate::e::f;"),
        file("e.rs", "mod f;"),
        file("e/f.rs", "fn g() { crate::h::i() }"),
        file("h.rs", "use crate::{j::K, l};"),
    ];
    assert!(circles(&chain).is_empty(), "{:?}", circles(&chain));
    let back = file("h.rs", "use crate::{a::{self, b::M}};");
    let found = circles(&[&chain[..4], &[back]].concat());
    assert_eq!(found, [["a.rs", "a/b.rs", "e/f.rs", "h.rs"]]);
}

#[test]
fn a_backend_knows_of_sealing_only_that_something_is_sealed() {
    for source in sources() {
        if source.module() == "backend" {
            for path in paths(&source.code, |name| name == "crate") {
                let is_sealed = path.get(2).is_some_and(|it| it.starts_with("Sealed"));
                let is_other = path.get(1).is_none_or(|it| it != "seal");
                assert!(is_other || is_sealed, "{}: {path:?}", source.path.display());
            }
        }
    }
}

#[test]
fn only_the_clock_reads_the_time_and_only_one_place_makes_random_bytes() {
    for source in sources() {
        let has = |text| source.code.contains(text);
        let (path, module) = (source.path.display(), source.module());
        let reads_time = has("SystemTime::now") || has("UNIX_EPOCH.elapsed");
        assert!(!reads_time || module == "clock", "{path}");
        assert!(!has("SystemRandom") || module == "random", "{path}");
    }
}

#[test]
fn the_reader_of_paths_finds_every_form() {
    let code =
        "use crate::a::B;\nuse crate::{c, d::{self, E as F, *}};\nlet g = crate::g::h::<I>();
        pub(in crate::j) fn k() {}\nuse super::l;\nvec![other::crate::m];";
    let found = paths(code, |name| name == "crate").into_iter();
    let found: Vec<_> = found.map(|path| path.join("::")).collect();
    let expected = [
        "crate::a::B",
        "crate::c",
        "crate::d::self",
        "crate::d::E",
        "crate::d::*",
        "crate::g::h",
        "crate::j",
    ];
    assert_eq!(found, expected);
}

#[test]
fn only_comments_literals_and_test_modules_are_not_read() {
    let text = r##"/* a /* b */ c */ let d = "crate::\"e"; // crate::f
        let g = r#"crate::h"#; let i: &'static str = b'"'; let j = '\'';
        #[cfg(test)]
        mod k { fn l() { "}" } }
        #[cfg(test)]
        fn m() {}
        #[cfg(test)]
        mod n;"##;
    let words = without_tests(&plain(text));
    let words: Vec<_> = words.split(|it: char| !it.is_alphanumeric()).collect();
    let words = words.into_iter().filter(|it| !it.is_empty());
    let words = words.collect::<Vec<_>>().join(" ");
    let expected = "let d let g let i static str b let j cfg test fn m cfg test mod n";
    assert_eq!(words, expected);
}
