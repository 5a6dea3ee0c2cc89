//! Which module may know which, checked over the source: `docs/architecture.md` has the why.
//!
//! A backend never learns what a token is, and nothing but `encrypted` knows both storage and
//! Slack; so a new database is one file, and plaintext has no way around the seal.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module, and the modules of this crate that it may import. The public face (axum, tower)
/// rides on the flows, these on the ports, these on the facts.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("caught", &[]),
    ("causes", &[]),
    ("clock", &[]),
    ("random", &[]),
    ("secret", &[]),
    ("tenant", &[]),
    ("tls", &[]),
    ("installation", &["secret", "tenant"]),
    ("store", &["clock", "installation", "secret", "tenant"]),
    (
        "slack",
        &["clock", "installation", "secret", "tenant", "tls"],
    ),
    ("seal", &["random"]),
    ("backend", &["random", "seal", "tls"]),
    (
        "encrypted",
        &[
            "backend",
            "causes",
            "clock",
            "installation",
            "seal",
            "secret",
            "store",
            "tenant",
        ],
    ),
    ("request", &["clock", "secret", "tenant"]),
    (
        "oauth",
        &[
            "caught",
            "causes",
            "clock",
            "installation",
            "random",
            "secret",
            "slack",
            "store",
            "tenant",
        ],
    ),
    (
        "rotation",
        &[
            "clock",
            "installation",
            "random",
            "secret",
            "slack",
            "store",
            "tenant",
        ],
    ),
    (
        "authorize",
        &[
            "causes",
            "clock",
            "installation",
            "request",
            "rotation",
            "secret",
            "slack",
            "store",
            "tenant",
        ],
    ),
    (
        "events",
        &[
            "caught",
            "causes",
            "clock",
            "installation",
            "request",
            "secret",
            "slack",
            "store",
            "tenant",
        ],
    ),
    (
        "operate",
        &[
            "causes",
            "clock",
            "events",
            "installation",
            "oauth",
            "secret",
            "slack",
            "store",
            "tenant",
        ],
    ),
    (
        "replay",
        &[
            "causes",
            "clock",
            "installation",
            "request",
            "store",
            "tenant",
        ],
    ),
    (
        "gate",
        &[
            "authorize",
            "causes",
            "events",
            "replay",
            "request",
            "rotation",
        ],
    ),
    (
        "layer",
        &["authorize", "events", "gate", "replay", "request"],
    ),
    (
        "web",
        &["authorize", "gate", "oauth", "request", "secret", "layer"],
    ),
    (
        "app",
        &[
            "authorize",
            "web",
            "backend",
            "causes",
            "clock",
            "encrypted",
            "events",
            "gate",
            "installation",
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
            "clock",
            "installation",
            "random",
            "request",
            "secret",
            "slack",
            "tenant",
        ],
    ),
];

/// Or a cache would not hear of it. The keyring and the target of a copy are read through none.
#[test]
fn every_commit_of_the_store_goes_through_the_driver() {
    let mut commits = Vec::new();
    for (path, module, code) in sources() {
        if module == "encrypted" {
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
        "commit.rs: backend",
        "commit.rs: backend",
        "driver.rs: commit(self.backend)",
        "driver.rs: self",
        "driver.rs: self",
        "keys.rs: backend",
        "keys.rs: commit(self.backend)",
    ];
    assert_eq!(
        commits, known,
        "`Driver::commit` alone commits to the driver's backend"
    );
}

#[test]
fn every_module_imports_only_what_its_layer_may() {
    for (path, module, code) in sources() {
        let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == module);
        let (_, allowed) = allowed.unwrap_or_else(|| {
            panic!(
                "{}: `{module}` is in no layer; give it one here",
                path.display()
            )
        });
        for import in imports(&code) {
            let known = import == module || allowed.contains(&import.as_str());
            assert!(
                known,
                "{}: `{module}` may not import `{import}`",
                path.display()
            );
        }
        assert!(
            !code.contains("super::super"),
            "{}: say `crate::…`",
            path.display()
        );
    }
}

#[test]
fn a_backend_knows_of_sealing_only_that_something_is_sealed() {
    for (path, module, code) in sources() {
        if module == "backend" {
            for (at, _) in code.match_indices("crate::seal") {
                let import = code[at..].lines().next().unwrap_or_default();
                let is_sealed = import
                    .trim_start_matches("crate::seal::")
                    .starts_with("Sealed");
                assert!(is_sealed, "{}: {import}", path.display());
            }
        }
    }
}

#[test]
fn only_the_clock_reads_the_time_and_only_one_place_makes_random_bytes() {
    for (path, module, code) in sources() {
        let reads_time = code.contains("SystemTime::now") || code.contains("UNIX_EPOCH.elapsed");
        assert!(!reads_time || module == "clock", "{}", path.display());
        assert!(
            !code.contains("SystemRandom") || module == "random",
            "{}",
            path.display()
        );
    }
}

#[test]
fn the_reader_of_imports_finds_every_form() {
    let code =
        "use crate::a::B;\nuse crate::{c, d::{E, F}};\nlet g = crate::g::h();\nuse super::i;";
    let found: Vec<_> = imports(code).into_iter().collect();
    assert_eq!(found, ["a", "c", "d", "g"]);
}

/// Every file but the crate's root: where it is, its module, and its code without comments and
/// tests.
fn sources() -> Vec<(PathBuf, String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![src.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the source is there") {
            let path = entry.expect("the source is there").path();
            let inside = path
                .strip_prefix(&src)
                .expect("it was found there")
                .to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") && inside != Path::new("lib.rs")
            {
                let module = inside
                    .iter()
                    .next()
                    .expect("a file has a name")
                    .to_string_lossy();
                let code = fs::read_to_string(&path).expect("the source is text");
                sources.push((
                    inside.clone(),
                    module.trim_end_matches(".rs").to_owned(),
                    plain(&code),
                ));
            }
        }
    }
    assert!(sources.len() > 10, "the source was found");
    sources
}

/// Code without comments, and without the tests at its end.
fn plain(code: &str) -> String {
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The first names of all paths that begin at the crate's root.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, start) in code.match_indices("crate::") {
        let rest = &code[at + start.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(first_name(rest));
            continue;
        };
        let (mut depth, mut from) = (0, 0);
        for (to, char) in group.char_indices() {
            if depth == 0 && matches!(char, ',' | '}') {
                found.insert(first_name(group[from..to].trim_start()));
                from = to + 1;
            }
            match char {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                _ => {}
            }
        }
    }
    found.remove("");
    found
}

fn first_name(path: &str) -> String {
    path.chars()
        .take_while(|char| char.is_alphanumeric() || *char == '_')
        .collect()
}
